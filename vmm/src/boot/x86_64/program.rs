//! The kernel of a plan with all that it is told of its machine: what a launch puts into guest memory, and what the
//! measurement of an SNP guest is of.

use devices::pci::Bdf;
use vm_memory::GuestMemoryBackend;

use super::acpi::{self, Iommu, PciRoot};
use super::{Encrypted, Image, LinuxPlacement, LoadError, Loaded, SEED_BYTES, Told, load};
use crate::boot::BootFiles;
use crate::plan::VmPlan;

/// What a kernel gets that is entered by ccvm, besides what all of them get.
#[derive(Debug, Clone, Copy)]
pub enum Extras<'a> {
    /// Random numbers.
    Seed(&'a [u8; SEED_BYTES]),
    /// No random numbers: they would change the measurement from run to run.
    Encrypted(&'a Encrypted<'a>),
}

/// Puts the kernel of `plan` and all that it needs into `memory`.
///
/// # Errors
/// When something does not fit, or a file cannot be read.
pub fn load_program<M: GuestMemoryBackend>(
    memory: &M,
    plan: &VmPlan,
    files: &BootFiles<Image>,
    placement: LinuxPlacement,
    extras: Extras<'_>,
) -> Result<Loaded, LoadError> {
    let endpoints = endpoints(plan);
    let acpi = acpi::write(&acpi_machine(plan, &endpoints))?;
    let ecam = (!plan.pci_windows().is_empty()).then(|| plan.board().ecam());
    let (seed, encrypted) = match extras {
        Extras::Seed(seed) => (Some(seed), None),
        Extras::Encrypted(encrypted) => (None, Some(encrypted)),
    };
    let told = Told {
        dram: plan.dram(),
        ecam,
        acpi: &acpi,
        seed,
        encrypted,
    };
    load(memory, files, &told, placement)
}

/// The functions that the guest's IOMMU translates for, if it has one.
#[must_use]
pub fn endpoints(plan: &VmPlan) -> Vec<Bdf> {
    plan.devices().iter().map(|device| device.guest).collect()
}

/// What the ACPI tables tell of the machine.
#[must_use]
pub fn acpi_machine<'a>(plan: &'a VmPlan, endpoints: &'a [Bdf]) -> acpi::Machine<'a> {
    let pci = PciRoot {
        ecam: plan.board().ecam(),
        windows: plan.pci_windows(),
        ports: plan.board().pci_ports(),
    };
    acpi::Machine {
        vcpus: plan.vcpus(),
        pci: (!plan.pci_windows().is_empty()).then_some(pci),
        iommu: plan.iommu().map(|iommu| Iommu {
            function: iommu.guest,
            endpoints,
        }),
    }
}
