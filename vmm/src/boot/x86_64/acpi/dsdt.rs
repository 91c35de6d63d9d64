//! The DSDT: devices that no bus finds.

mod osc;
mod power_button;

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package,
    PackageBuilder, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};
use devices::ports::PortRange;
use devices::power::PowerRegisters;
use iommu::{Gpa, PageRange};

use super::{Machine, OEM, OEM_REVISION, OEM_TABLE, PciRoot, serialised};
use crate::boot::x86_64::{lines, ports};
use crate::plan::{PciWindow, PciWindowKind, last_bus};

const HEADER_BYTES: u32 = 36;
/// Integers have 64 bits.
const REVISION: u8 = 2;

/// The devices of `machine`.
pub(super) fn dsdt(machine: &Machine<'_>) -> Sdt {
    let mut dsdt = Sdt::new(
        *b"DSDT",
        HEADER_BYTES,
        REVISION,
        OEM,
        OEM_TABLE,
        OEM_REVISION,
    );
    dsdt.append_slice(&soft_off());
    let mut devices = vec![serial(), panic_notifier()];
    devices.extend(power_button::devices());
    if let Some(pci) = &machine.pci {
        devices.extend([configuration_space(pci), pci_root(pci)]);
    }
    let devices = devices.iter().map(|device| device as &dyn Aml).collect();
    dsdt.append_slice(&serialised(&Scope::new("_SB_".into(), devices)));
    dsdt
}

/// AML that has been written.
struct Written(Vec<u8>);

impl Written {
    fn of(aml: &dyn Aml) -> Self {
        Self(serialised(aml))
    }
}

impl Aml for Written {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn name(name: &str, value: &dyn Aml) -> Written {
    Written::of(&Name::new(Path::new(name), value))
}

fn device(path: &str, children: &[Written]) -> Written {
    let children = children.iter().map(|child| child as &dyn Aml).collect();
    Written::of(&Device::new(Path::new(path), children))
}

fn resources(resources: &[&dyn Aml]) -> Written {
    name("_CRS", &ResourceTemplate::new(resources.to_vec()))
}

/// The only sleep that there is.
fn soft_off() -> Vec<u8> {
    let kind = PowerRegisters::SOFT_OFF;
    serialised(&name(
        "_S5_",
        &Package::new(vec![&kind, &ZERO, &ZERO, &ZERO]),
    ))
}

/// The serial port. Its interrupt is an edge (`devices::serial`).
fn serial() -> Written {
    let interrupt = Interrupt::new(true, true, false, false, lines::SERIAL);
    device(
        "COM1",
        &[
            name("_HID", &EISAName::new("PNP0501")),
            name("_UID", &ZERO),
            resources(&[&io(ports::SERIAL), &interrupt]),
        ],
    )
}

/// The panic notifier, by the name that its Linux driver knows.
fn panic_notifier() -> Written {
    device(
        "PANC",
        &[
            name("_HID", &"QEMU0001"),
            name("_UID", &ZERO),
            resources(&[&io(ports::PANIC)]),
        ],
    )
}

fn io(ports: PortRange) -> IO {
    let count = u8::try_from(ports.count()).unwrap_or(u8::MAX);
    IO::new(ports.first(), ports.first(), 1, count)
}

/// Configuration space as something that is in use: a kernel believes the MCFG only where it is.
fn configuration_space(pci: &PciRoot<'_>) -> Written {
    device(
        "ECAM",
        &[
            name("_HID", &EISAName::new("PNP0C02")),
            name("_UID", &ZERO),
            resources(&[&memory(pci.ecam)]),
        ],
    )
}

fn pci_root(pci: &PciRoot<'_>) -> Written {
    let last = last_bus(pci.ecam);
    let buses = AddressSpace::<u16>::new_bus_number(0, last.into());
    let windows: Vec<_> = pci.windows.iter().filter_map(window).collect();
    let ports = pci
        .ports
        .map(|ports| AddressSpace::<u16>::new_io(ports.first(), ports.last(), None));
    let mut passed_on: Vec<&dyn Aml> = vec![&buses];
    passed_on.extend(windows.iter().map(|window| window as &dyn Aml));
    passed_on.extend(ports.iter().map(|ports| ports as &dyn Aml));
    let mut children = vec![
        name("_HID", &EISAName::new("PNP0A08")),
        name("_CID", &EISAName::new("PNP0A03")),
        name("_SEG", &ZERO),
        name("_BBN", &ZERO),
        name("_UID", &ZERO),
        resources(&passed_on),
        name("_PRT", &interrupt_routing()),
    ];
    // A kernel leaves slots alone that nobody has given it.
    children.extend((last > 0).then(osc::control_of_slots));
    device("PCI0", &children)
}

/// A window of memory; ports are no memory here.
fn window(window: &PciWindow) -> Option<AddressSpace<u64>> {
    match window.kind {
        PciWindowKind::Mem32 | PciWindowKind::Mem64 => Some(memory(window.range)),
        PciWindowKind::Io => None,
    }
}

fn memory(range: PageRange<Gpa>) -> AddressSpace<u64> {
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let (first, last) = (range.start().raw(), range.last().raw());
    AddressSpace::<u64>::new_memory(cacheable, true, first, last, None)
}

/// Which input each pin of each device is wired to.
fn interrupt_routing() -> PackageBuilder {
    const ANY_FUNCTION: u32 = 0xffff;
    let mut table = PackageBuilder::new();
    for number in 0..32_u8 {
        for pin in 0..4_u8 {
            let address = u32::from(number) << 16 | ANY_FUNCTION;
            let input = lines::intx(number, pin);
            table.add_element(&Package::new(vec![&address, &pin, &ZERO, &input]));
        }
    }
    table
}
