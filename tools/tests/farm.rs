//! The fixture `hosts/farm-256.json`: a large host, made up here so that its 256 devices are not
//! typed by hand. It is what the speed of a check and of a plan is measured on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod golden;

use std::fmt::Write as _;

use golden::Golden;
use vmm::host::facts::{
    AddressRange, Arch, BarFacts, BarKind, DeviceFacts, Hex, HostFacts, KvmFacts, PciAddress,
    ReservedRegion, SCHEMA,
};
use vmm::platform::Platform;

/// A kind of device: how many, ids, class, driver, its mask, BARs.
struct Kind {
    count: u8,
    vendor: u16,
    device: u16,
    class: u32,
    driver: &'static str,
    mask: u8,
    bars: &'static [BarFacts],
}

const fn bar(index: u8, size: u64, kind: BarKind) -> BarFacts {
    BarFacts { index, size, kind }
}

const KINDS: [Kind; 4] = [
    Kind {
        count: 64,
        vendor: 0x144d,
        device: 0xa80a,
        class: 0x01_0802,
        driver: "nvme",
        mask: 64,
        bars: &[bar(0, 16 << 10, BarKind::Mem64)],
    },
    Kind {
        count: 128,
        vendor: 0x15b3,
        device: 0x101e,
        class: 0x02_0000,
        driver: "mlx5_core",
        mask: 64,
        bars: &[bar(0, 1 << 20, BarKind::Mem64Prefetchable)],
    },
    Kind {
        count: 48,
        vendor: 0x8086,
        device: 0x10fb,
        class: 0x02_0000,
        driver: "ixgbe",
        mask: 64,
        bars: &[
            bar(0, 512 << 10, BarKind::Mem64Prefetchable),
            bar(2, 32, BarKind::Io),
            bar(4, 16 << 10, BarKind::Mem64Prefetchable),
        ],
    },
    Kind {
        count: 16,
        vendor: 0x10de,
        device: 0x2330,
        class: 0x03_0200,
        driver: "nvidia",
        mask: 52,
        bars: &[
            bar(0, 16 << 20, BarKind::Mem64Prefetchable),
            bar(2, 128 << 30, BarKind::Mem64Prefetchable),
            bar(4, 32 << 20, BarKind::Mem64Prefetchable),
        ],
    },
];

fn farm() -> HostFacts {
    let kinds = KINDS.iter().zip(0_u32..);
    let devices = kinds.flat_map(|(kind, segment)| {
        (0..kind.count).map(move |number| device(kind, segment, number))
    });
    HostFacts {
        schema: SCHEMA,
        arch: Arch::Aarch64,
        kvm: Some(KvmFacts {
            api: 12,
            ipa_bits_max: Some(48),
            phys_bits: None,
            platforms: vec![Platform::None, Platform::EmulatedRealm],
            lacking: Vec::new(),
        }),
        vfio: None,
        devices: devices.collect(),
        unknown: vec![],
    }
}

fn device(kind: &Kind, segment: u32, number: u8) -> DeviceFacts {
    let range = |start, end| AddressRange {
        start: Hex(start),
        end: Hex(end),
    };
    DeviceFacts {
        pci: PciAddress {
            segment,
            bus: number + 1,
            device: 0,
            function: 0,
        },
        vendor: Hex(kind.vendor),
        device: Hex(kind.device),
        class: Hex(kind.class),
        group: Some(segment * 256 + u32::from(number)),
        driver: Some(kind.driver.to_owned()),
        own_node: None,
        dma_mask_bits: Some(kind.mask),
        coherent_dma_mask_bits: Some(kind.mask),
        register_dma_bits: None,
        tdisp_dma_bits: None,
        bars: kind.bars.to_vec(),
        reserved_regions: vec![ReservedRegion {
            start: Hex(0x800_0000),
            end: Hex(0x80f_ffff),
            kind: "msi".to_owned(),
        }],
        iova_ranges: Some(vec![
            range(0, 0x7ff_ffff),
            range(0x810_0000, 0xffff_ffff_ffff),
        ]),
    }
}

/// One device a line.
fn document(farm: &HostFacts) -> String {
    let kvm = serde_json::to_string(&farm.kvm).unwrap();
    let devices = farm
        .devices
        .iter()
        .map(|device| serde_json::to_string(device).unwrap());
    let devices: Vec<String> = devices.collect();
    format!(
        "{{\"schema\":{SCHEMA},\"arch\":\"aarch64\",\"kvm\":{kvm},\"devices\":[\n{}\n]}}\n",
        devices.join(",\n")
    )
}

/// A Realm with every device of the farm but the GPUs.
fn config(farm: &HostFacts) -> String {
    let mut text =
        "[vm]\nplatform = \"emulated-realm\"\nvcpus = 64\nmemory = \"512 GiB\"\n".to_owned();
    for device in farm
        .devices
        .iter()
        .filter(|device| device.vendor.0 != 0x10de)
    {
        writeln!(text, "\n[[device]]\npci = \"{}\"", device.pci).unwrap();
    }
    text
}

#[test]
fn the_fixture_is_the_farm() {
    let farm = farm();
    assert_eq!(farm.devices.len(), 256);
    let text = document(&farm);
    assert_eq!(vmm::host::from_json(&text).unwrap(), farm);
    Golden::new("tests/fixtures/hosts").compare("farm-256.json", &text);
    Golden::new("tests/fixtures/configs").compare("farm.toml", &config(&farm));
}
