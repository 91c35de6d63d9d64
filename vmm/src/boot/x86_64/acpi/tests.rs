//! The tables as a kernel reads them: from the RSDP on, each by its length and its checksum.

use std::collections::BTreeMap;

use super::*;
use crate::plan::PciWindowKind;

const HEADER_BYTES: usize = 36;

/// Tables by signature.
type Tables = BTreeMap<[u8; 4], Vec<u8>>;

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(number)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at guest-physical `address`.
fn table(image: &[u8], address: u64) -> Vec<u8> {
    let start = usize::try_from(address - low_memory::ACPI.raw()).unwrap();
    assert!(start.is_multiple_of(ALIGNMENT));
    let bytes = usize::try_from(number::<4>(image, start + 4)).unwrap();
    let table = image[start..start + bytes].to_vec();
    assert_eq!(sum(&table), 0, "{:?}", &table[..4]);
    table
}

fn read(machine: &Machine<'_>) -> Tables {
    let image = write(machine).unwrap();
    assert_eq!(&image[..8], b"RSD PTR ");
    assert_eq!((sum(&image[..20]), sum(&image[..36])), (0, 0));
    let xsdt = table(&image, number::<8>(&image, 24));
    let mut tables = Tables::new();
    for entry in xsdt[HEADER_BYTES..].chunks_exact(8) {
        let table = table(&image, number::<8>(entry, 0));
        tables.insert(*table.first_chunk().unwrap(), table);
    }
    let dsdt = number::<8>(&tables[b"FACP"], 140);
    tables.insert(*b"DSDT", table(&image, dsdt));
    tables
}

fn windows() -> [PciWindow; 2] {
    let window = |start, bytes, kind| PciWindow {
        range: PageRange::new(Gpa::new(start), bytes).unwrap(),
        kind,
    };
    [
        window(0xc000_0000, 0x2000_0000, PciWindowKind::Mem32),
        window(1 << 36, 1 << 30, PciWindowKind::Mem64),
    ]
}

fn root(windows: &[PciWindow]) -> PciRoot<'_> {
    PciRoot {
        ecam: PageRange::new(Gpa::new(0xe000_0000), 1 << 20).unwrap(),
        windows,
        ports: PortRange::new(0x1000, 0xffff),
    }
}

fn plain(vcpus: u32) -> Machine<'static> {
    Machine {
        vcpus,
        pci: None,
        iommu: None,
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_machine_without_pci_has_no_table_of_it() {
    let tables = read(&plain(1));
    let names: Vec<_> = tables.keys().collect();
    assert_eq!(names, [b"APIC", b"DSDT", b"FACP"]);
    assert!(!holds(&tables[b"DSDT"], b"PCI0"));
}

#[test]
fn a_root_with_several_buses_tells_of_them_and_gives_its_slots_away() {
    let windows = windows();
    let root = |ecam| {
        let root = PciRoot {
            ecam: PageRange::new(Gpa::new(0xe000_0000), ecam).unwrap(),
            ..root(&windows)
        };
        read(&Machine {
            pci: Some(root),
            ..plain(1)
        })
    };
    let (one, four) = (root(1 << 20), root(4 << 20));
    let last = |tables: &BTreeMap<[u8; 4], Vec<u8>>| tables[b"MCFG"][55];
    assert_eq!((last(&one), last(&four)), (0, 3));
    assert!(!holds(&one[b"DSDT"], b"_OSC"));
    // Of four arguments: the fourth comes back if the first is that of a PCI root.
    let method = b"_OSC\x04\xa0\x19\x93\x68\x11\x13\x0a\x10\x5b\x4d\xdb\x33";
    assert!(holds(&four[b"DSDT"], method));
    // A bus number resource from 0 to 3.
    let buses = b"\x88\x0d\x00\x02\x0c\x00\x00\x00\x00\x00\x03\x00\x00\x00\x04\x00";
    assert!(holds(&four[b"DSDT"], buses));
}

#[test]
fn hardware_is_reduced_and_power_has_registers() {
    let fadt = &read(&plain(1))[b"FACP"];
    let flags = number::<4>(fadt, 112);
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    // No VGA, no clock of an old PC; neither an 8042 nor other old devices.
    assert_eq!(number::<2>(fadt, 109), 0b10_0100);
    let register = |at: usize| (fadt[at], fadt[at + 1], number::<8>(fadt, at + 4));
    assert_eq!((register(116), fadt[128]), ((1, 8, 0x602), 1));
    assert_eq!(register(244), (1, 8, 0x600));
    assert_eq!(register(256), (1, 8, 0x601));
    // The name S5, and a package of four whose first is the type of sleep.
    let off = b"\x08_S5_\x12\x07\x04\x0a\x05\x00\x00\x00";
    assert!(holds(&read(&plain(1))[b"DSDT"], off));
}

#[test]
fn the_power_button_is_notified_at_an_edge_of_its_own_input() {
    let dsdt = &read(&plain(1))[b"DSDT"];
    // An extended interrupt: consumer, edge, active high, one of number 20.
    assert!(holds(dsdt, b"\x89\x06\x00\x03\x01\x14\0\0\0"));
    // A method of one argument, serialised: Notify (PWRB, 0x80).
    assert!(holds(dsdt, b"_EVT\x09\x86PWRB\x0a\x80"));
    assert!(holds(dsdt, b"ACPI0013"));
}

#[test]
fn processors_are_listed_by_the_ids_of_their_local_apics() {
    let madt = &read(&plain(300))[b"APIC"];
    let mut rest = &madt[HEADER_BYTES + 8..];
    let mut ids = Vec::new();
    let mut ioapics = 0;
    while let [kind, length, ..] = *rest {
        let (entry, behind) = rest.split_at(length.into());
        match kind {
            0 => ids.push((8, entry[3].into(), number::<4>(entry, 4))),
            9 => ids.push((16, number::<4>(entry, 4), number::<4>(entry, 8))),
            1 => ioapics += 1,
            other => panic!("structure {other}"),
        }
        rest = behind;
    }
    let short = (0..255).map(|id| (8, id, 1));
    let long = (255..300).map(|id| (16, id, 1));
    assert_eq!(ids, short.chain(long).collect::<Vec<_>>());
    assert_eq!(ioapics, 1);
    assert_eq!(number::<4>(madt, 36), 0xfee0_0000);
}

#[test]
fn a_machine_with_too_many_processors_is_told_so() {
    assert!(write(&plain(4096)).is_ok());
    assert!(matches!(write(&plain(10_000)), Err(TooLarge { .. })));
}

#[test]
fn pci_has_its_windows_its_ports_and_its_configuration_space() {
    let windows = windows();
    let machine = Machine {
        pci: Some(root(&windows)),
        ..plain(1)
    };
    let tables = read(&machine);
    let mcfg = &tables[b"MCFG"];
    assert_eq!(number::<8>(mcfg, 44), 0xe000_0000);
    assert_eq!(number::<4>(mcfg, 52), 0);
    let dsdt = &tables[b"DSDT"];
    for (first, last) in [
        (0xc000_0000_u64, 0xdfff_ffff_u64),
        (1 << 36, (1 << 36) + (1 << 30) - 1),
        (0xe000_0000, 0xe00f_ffff),
    ] {
        let range = [first.to_le_bytes(), last.to_le_bytes()];
        assert!(holds(dsdt, range.as_flattened()), "{first:#x}");
    }
    let ports = [0x1000_u16.to_le_bytes(), 0xffff_u16.to_le_bytes()];
    assert!(holds(dsdt, ports.as_flattened()));
    // Device 3, INTB, wired straight to GSI 16.
    assert!(holds(dsdt, b"\x04\x0c\xff\xff\x03\x00\x01\x00\x0a\x10"));
}

#[test]
fn the_iommu_translates_for_each_endpoint_and_not_for_itself() {
    let windows = windows();
    let bdf = |device| Bdf::new(0, device, 0).unwrap();
    let machine = Machine {
        pci: Some(root(&windows)),
        iommu: Some(Iommu {
            function: bdf(3),
            endpoints: &[bdf(1), bdf(2)],
        }),
        ..plain(1)
    };
    let viot = &read(&machine)[b"VIOT"];
    assert_eq!((number::<2>(viot, 36), number::<2>(viot, 38)), (3, 48));
    // A virtio-pci IOMMU, 16 bytes, at segment 0, function 00:03.0.
    let node = [3, 0, 16, 0, 0, 0, 0x18, 0];
    assert_eq!(viot[48..56], node);
    for (at, id) in [(64, 0x08), (88, 0x10)] {
        assert_eq!((viot[at], viot[at + 2]), (1, 24));
        assert_eq!(number::<4>(viot, at + 4), id);
        assert_eq!(
            (number::<2>(viot, at + 12), number::<2>(viot, at + 14)),
            (id, id)
        );
        assert_eq!(number::<2>(viot, at + 16), 48);
    }
}
