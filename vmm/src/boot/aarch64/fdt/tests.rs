//! The tree as a kernel reads it, through a reader of its own.

use std::collections::BTreeMap;

use super::*;

/// Properties by path, such as `/psci/method`.
struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    /// Reads a blob (Devicetree Specification 0.4, section 5).
    fn read(blob: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap());
        assert_eq!(word(0), 0xd00d_feed);
        assert_eq!(word(4) as usize, blob.len());
        let (mut at, strings) = (word(8) as usize, word(12) as usize);
        let text = |at: usize| {
            let end = at + blob[at..].iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8(blob[at..end].to_vec()).unwrap()
        };
        let mut path: Vec<String> = Vec::new();
        let mut properties = BTreeMap::new();
        loop {
            let token = word(at);
            at += 4;
            match token {
                1 => {
                    let name = text(at);
                    at = (at + name.len() + 1).next_multiple_of(4);
                    path.push(name);
                }
                2 => drop(path.pop().unwrap()),
                3 => {
                    let (bytes, name) = (word(at) as usize, word(at + 4) as usize);
                    let key = format!("{}/{}", path.join("/"), text(strings + name));
                    let value = blob[at + 8..at + 8 + bytes].to_vec();
                    assert!(properties.insert(key, value).is_none());
                    at = (at + 8 + bytes).next_multiple_of(4);
                }
                9 => break,
                other => panic!("token {other}"),
            }
        }
        Self(properties)
    }

    fn text(&self, path: &str) -> &str {
        std::str::from_utf8(self.bytes(path))
            .unwrap()
            .trim_end_matches('\0')
    }

    fn bytes(&self, path: &str) -> &[u8] {
        self.0.get(path).unwrap_or_else(|| panic!("no {path}"))
    }

    fn cells(&self, path: &str) -> Vec<u32> {
        let (cells, rest) = self.bytes(path).as_chunks();
        assert!(rest.is_empty());
        cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect()
    }

    fn numbers(&self, path: &str) -> Vec<u64> {
        let (numbers, rest) = self.bytes(path).as_chunks();
        assert!(rest.is_empty());
        numbers.iter().map(|n| u64::from_be_bytes(*n)).collect()
    }
}

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

fn mmio() -> MmioLayout {
    MmioLayout {
        gic_distributor: range(0x800_0000, 0x1_0000),
        gic_its: range(0x808_0000, 0x2_0000),
        gic_redistributors: range(0x80a_0000, 0x4_0000),
        serial: range(0x900_0000, 0x1000),
        rtc: range(0x901_0000, 0x1000),
        gpio: range(0x902_0000, 0x1000),
        ecam: range(0x3000_0000, 0x10_0000),
    }
}

const SEED: [u8; SEED_BYTES] = [0x5a; SEED_BYTES];

fn tree(psci: PsciConduit, windows: &[PciWindow], initrd: Option<(Gpa, u64)>) -> Tree {
    tree_with_iommu(psci, windows, initrd, None)
}

fn tree_with_iommu(
    psci: PsciConduit,
    windows: &[PciWindow],
    initrd: Option<(Gpa, u64)>,
    iommu: Option<Iommu<'_>>,
) -> Tree {
    let mmio = mmio();
    let board = Board {
        dram: &[
            range(0x4000_0000, 0x2000_0000),
            range(0x1_0000_0000, 0x4000_0000),
        ],
        mmio: &mmio,
        pci_windows: windows,
        affinities: &[0, 1, 0x1_0000_0000],
        iommu,
        psci,
    };
    let chosen = Chosen {
        cmdline: "console=ttyS0 quiet",
        initrd,
        seed: Some(&SEED),
    };
    Tree::read(&write(&board, &chosen).unwrap())
}

#[test]
fn memory_processors_and_psci_are_as_planned() {
    let tree = tree(PsciConduit::Smc, &[], None);
    assert_eq!(
        tree.numbers("/memory@40000000/reg"),
        [0x4000_0000, 0x2000_0000]
    );
    assert_eq!(
        tree.numbers("/memory@100000000/reg"),
        [0x1_0000_0000, 0x4000_0000]
    );
    assert_eq!(tree.numbers("/cpus/cpu@100000000/reg"), [0x1_0000_0000]);
    assert_eq!(tree.text("/cpus/cpu@1/enable-method"), "psci");
    assert_eq!(tree.text("/psci/method"), "smc");
    assert_eq!(tree.text("/psci/compatible"), "arm,psci-1.0\0arm,psci-0.2");
}

#[test]
fn the_loader_says_where_the_initrd_is_and_gives_randomness() {
    let tree = tree(PsciConduit::Hvc, &[], Some((Gpa::new(0x4400_0000), 0x1234)));
    assert_eq!(tree.text("/chosen/bootargs"), "console=ttyS0 quiet");
    assert_eq!(tree.text("/chosen/stdout-path"), "/serial@9000000");
    assert_eq!(tree.numbers("/chosen/linux,initrd-start"), [0x4400_0000]);
    assert_eq!(tree.numbers("/chosen/linux,initrd-end"), [0x4400_1234]);
    assert_eq!(tree.bytes("/chosen/kaslr-seed").len(), 8);
    assert_eq!(tree.bytes("/chosen/rng-seed").len(), 64);
    assert_eq!(tree.text("/psci/method"), "hvc");
}

#[test]
fn interrupts_reach_the_gic_and_messages_the_its() {
    let tree = tree(PsciConduit::Hvc, &[], None);
    let gic = "/interrupt-controller@8000000";
    assert_eq!(
        tree.numbers(&format!("{gic}/reg")),
        [0x800_0000, 0x1_0000, 0x80a_0000, 0x4_0000]
    );
    assert_eq!(tree.cells("/interrupt-parent"), [PHANDLE_GIC]);
    assert_eq!(tree.cells(&format!("{gic}/phandle")), [PHANDLE_GIC]);
    let its = format!("{gic}/msi-controller@8080000");
    assert_eq!(tree.cells(&format!("{its}/phandle")), [PHANDLE_ITS]);
    assert_eq!(tree.numbers(&format!("{its}/reg")), [0x808_0000, 0x2_0000]);
    assert_eq!(
        tree.cells("/serial@9000000/interrupts"),
        [SPI, 0, EDGE_RISING]
    );
    assert!(!tree.0.keys().any(|path| path.contains("pcie@")));
}

#[test]
fn the_panic_notifier_shares_the_page_of_the_serial_port() {
    let tree = tree(PsciConduit::Hvc, &[], None);
    let port = tree.numbers("/serial@9000000/reg");
    assert_eq!(port, [0x900_0000, 0x800]);
    assert_eq!(tree.numbers("/pvpanic@9000800/reg"), [0x900_0800, 2]);
}

#[test]
fn the_power_button_is_a_key_at_an_input_of_the_gpio_controller() {
    let tree = tree(PsciConduit::Hvc, &[], None);
    let gpio = "/gpio@9020000";
    assert_eq!(tree.numbers(&format!("{gpio}/reg")), [0x902_0000, 0x1000]);
    assert_eq!(
        tree.cells(&format!("{gpio}/interrupts")),
        [SPI, 6, LEVEL_HIGH]
    );
    assert_eq!(tree.cells(&format!("{gpio}/phandle")), [PHANDLE_GPIO]);
    assert_eq!(tree.text("/gpio-keys/compatible"), "gpio-keys");
    assert_eq!(tree.cells("/gpio-keys/power/linux,code"), [116]);
    assert_eq!(tree.cells("/gpio-keys/power/gpios"), [PHANDLE_GPIO, 3, 0]);
}

#[test]
fn pci_windows_and_pins_are_those_of_the_plan() {
    let windows = [
        PciWindow {
            range: range(0x3eff_0000, 0x1_0000),
            kind: PciWindowKind::Io,
        },
        PciWindow {
            range: range(0x1000_0000, 0x100_0000),
            kind: PciWindowKind::Mem32,
        },
        PciWindow {
            range: range(0x8_0000_0000, 0x4000_0000),
            kind: PciWindowKind::Mem64,
        },
    ];
    let tree = tree(PsciConduit::Hvc, &windows, None);
    let pcie = "/pcie@30000000";
    assert_eq!(
        tree.cells(&format!("{pcie}/ranges")),
        [
            [0x0100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000],
            [0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x100_0000],
            [0x0300_0000, 8, 0, 8, 0, 0, 0x4000_0000],
        ]
        .as_flattened()
    );
    assert_eq!(
        tree.cells(&format!("{pcie}/msi-map")),
        [0, PHANDLE_ITS, 0, 0x1_0000]
    );
    let map = tree.cells(&format!("{pcie}/interrupt-map"));
    let entries = map.as_chunks::<10>().0;
    assert_eq!(entries.len(), 16);
    // INTB of device 3.
    let expected = [
        3 << 11,
        0,
        0,
        2,
        PHANDLE_GIC,
        0,
        0,
        SPI,
        lines::intx(3, 1),
        LEVEL_HIGH,
    ];
    assert!(entries.contains(&expected));
    assert_eq!(lines::intx(3, 1), lines::INTX);
    assert_eq!(lines::intx(7, 1), lines::intx(3, 1));
}

#[test]
fn an_iommu_translates_for_its_endpoints_and_not_for_itself() {
    let windows = [PciWindow {
        range: range(0x1000_0000, 0x1000_0000),
        kind: PciWindowKind::Mem32,
    }];
    let function = |device| Bdf::new(0, device, 0).unwrap();
    let endpoints = [function(1), function(2)];
    let iommu = Iommu {
        function: function(3),
        endpoints: &endpoints,
    };
    let tree = tree_with_iommu(PsciConduit::Hvc, &windows, None, Some(iommu));
    let node = "/pcie@30000000/iommu@3,0";
    assert_eq!(tree.text(&format!("{node}/compatible")), "virtio,pci-iommu");
    assert_eq!(tree.cells(&format!("{node}/reg")), [0x1800, 0, 0, 0, 0]);
    let phandle = tree.cells(&format!("{node}/phandle"))[0];
    assert_eq!(
        tree.cells("/pcie@30000000/iommu-map"),
        [8, phandle, 8, 1, 0x10, phandle, 0x10, 1]
    );
}
