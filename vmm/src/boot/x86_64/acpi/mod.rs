//! The ACPI tables by which a kernel finds its machine: a hardware-reduced one (ACPI 6.5, 4.1), so that
//! it looks for no timer, no interrupt controller and no clock of an old PC.
//!
//! ```text
//! RSDP ─► XSDT ─┬─► FADT ─► DSDT   power registers; devices
//!               ├─► MADT           processors and the IOAPIC
//!               ├─► MCFG           PCI configuration space
//!               └─► VIOT           the IOMMU, and what it translates for
//! ```

mod dsdt;
mod fadt;
mod madt;
mod viot;

use acpi_tables::Aml;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use devices::pci::Bdf;
use devices::ports::PortRange;
use iommu::{Gpa, PageRange};

use super::low_memory;
use crate::plan::{PciWindow, last_bus};

/// Who has made the tables.
const OEM: [u8; 6] = *b"CCVM  ";
/// What for.
const OEM_TABLE: [u8; 8] = *b"CCVM    ";
const OEM_REVISION: u32 = 1;

/// Tables start at multiples of this.
const ALIGNMENT: usize = 16;

/// What the kernel is told of its machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// How many processors there are.
    pub vcpus: u32,
    /// The PCI root; none: there is no PCI.
    pub pci: Option<PciRoot<'a>>,
    /// The IOMMU of its devices.
    pub iommu: Option<Iommu<'a>>,
}

/// The PCI root.
#[derive(Debug, Clone, Copy)]
pub struct PciRoot<'a> {
    /// Configuration space, 1 MiB for each bus from 0 on.
    pub ecam: PageRange<Gpa>,
    /// Memory that it passes on.
    pub windows: &'a [PciWindow],
    /// Ports that it passes on.
    pub ports: Option<PortRange>,
}

/// A virtio-iommu on the PCI bus.
#[derive(Debug, Clone, Copy)]
pub struct Iommu<'a> {
    /// The function.
    pub function: Bdf,
    /// The functions that it translates for; their requester ids are its endpoints.
    pub endpoints: &'a [Bdf],
}

/// The tables do not fit where a kernel looks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes of ACPI tables are more than {}",
    low_memory::ACPI_BYTES
)]
pub struct TooLarge {
    /// How large they are.
    pub bytes: usize,
}

/// Writes the tables, to be put at [`low_memory::ACPI`]; the RSDP comes first.
///
/// # Errors
/// When there are too many processors to tell of.
pub fn write(machine: &Machine<'_>) -> Result<Vec<u8>, TooLarge> {
    let mut tables = Tables::default();
    let dsdt = tables.add(&dsdt::dsdt(machine));
    let mut listed = vec![
        tables.add(&fadt::fadt(dsdt)),
        tables.add(&madt::madt(machine.vcpus)),
    ];
    if let Some(pci) = &machine.pci {
        listed.push(tables.add(&mcfg(pci)));
    }
    if let Some(iommu) = &machine.iommu {
        listed.push(tables.add(&viot::viot(iommu)));
    }
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    for address in listed {
        xsdt.add_entry(address);
    }
    let xsdt = tables.add(&xsdt);
    tables.finish(&Rsdp::new(OEM, xsdt))
}

/// The tables that others point at, each by itself: for firmware that puts them where it likes, and points
/// from the FADT at the DSDT.
#[must_use]
pub fn separate(machine: &Machine<'_>) -> Vec<Vec<u8>> {
    let mut tables = vec![
        serialised(&dsdt::dsdt(machine)),
        serialised(&fadt::fadt(0)),
        serialised(&madt::madt(machine.vcpus)),
    ];
    tables.extend(machine.pci.as_ref().map(|pci| serialised(&mcfg(pci))));
    let viot = machine.iommu.as_ref().map(viot::viot);
    tables.extend(viot.map(|viot| serialised(&viot)));
    tables
}

/// The table of processors and interrupt controllers by itself.
#[must_use]
pub fn processors(vcpus: u32) -> Vec<u8> {
    serialised(&madt::madt(vcpus))
}

fn mcfg(pci: &PciRoot<'_>) -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(pci.ecam.start().raw(), 0, 0, last_bus(pci.ecam));
    mcfg
}

/// Tables one after the other, behind the room for the RSDP.
struct Tables(Vec<u8>);

impl Default for Tables {
    fn default() -> Self {
        Self(vec![0; Rsdp::len()])
    }
}

impl Tables {
    /// Adds a table; returns its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let offset = self.0.len().next_multiple_of(ALIGNMENT);
        self.0.resize(offset, 0);
        table.to_aml_bytes(&mut self.0);
        low_memory::ACPI.raw().saturating_add(offset as u64)
    }

    fn finish(mut self, rsdp: &Rsdp) -> Result<Vec<u8>, TooLarge> {
        let bytes = self.0.len();
        if bytes > low_memory::ACPI_BYTES {
            return Err(TooLarge { bytes });
        }
        self.0.splice(..Rsdp::len(), serialised(rsdp));
        Ok(self.0)
    }
}

fn serialised(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
