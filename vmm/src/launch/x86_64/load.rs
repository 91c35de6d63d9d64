//! The guest's memory gets what it boots: kernel, initial RAM disk, ACPI tables, memory map.

use devices::pci::Bdf;

use super::{Guest, LoadedGuest};
use crate::boot::x86_64::acpi::{self, Iommu, PciRoot};
use crate::boot::x86_64::{
    Encrypted, Image, LinuxPlacement, Loaded, Placement, SEED_BYTES, Start, Told, igvm,
    load as load_files, low_memory, td,
};
use crate::boot::{BootFiles, Kernel as _, igvm as igvm_file};
use crate::launch::LaunchError;
use crate::launch::created::Machine;
use crate::plan::VmPlan;
use crate::platform::snp::{self, SpecialPages};
use crate::platform::tdx::Td;
use crate::random;

/// Puts everything in its place and the first processor at its start.
pub(in crate::launch) fn load(
    machine: &Machine,
    plan: &VmPlan,
    files: &BootFiles<Image>,
    placement: Placement,
    guest: Guest,
) -> Result<LoadedGuest, LaunchError> {
    match (guest, placement) {
        (Guest::Unmeasured, Placement::Linux(placement)) => {
            let seed = random::bytes().map_err(LaunchError::host("get random numbers"))?;
            let loaded = load_kernel(machine, plan, files, placement, Extras::Seed(&seed))?;
            enter(machine, loaded.start)?;
            Ok(LoadedGuest::Unmeasured)
        }
        (Guest::Snp(guest), Placement::Linux(placement)) => {
            let (bit, cpuid) = machine.chipset.encrypted()?;
            let encrypted = Encrypted {
                bit,
                cpuid: cpuid.bytes(),
            };
            let extras = Extras::Encrypted(&encrypted);
            let loaded = load_kernel(machine, plan, files, placement, extras)?;
            let special = SpecialPages {
                cpuid: low_memory::SNP_CPUID,
                secrets: low_memory::SNP_SECRETS,
            };
            let content = snp::layout(plan.dram(), &loaded.parts, special)?;
            let guest = guest.load(machine.pages.ram(), &content, kvm::snp::POLICY)?;
            enter(machine, loaded.start)?;
            Ok(LoadedGuest::Snp(guest))
        }
        (Guest::Snp(guest), Placement::Igvm) => load_igvm(machine, plan, files, guest),
        (Guest::Td(td), Placement::Linux(_)) => load_td(machine, plan, files, td),
        (Guest::Unmeasured | Guest::Td(_), Placement::Igvm) => Err(LaunchError::Misplaced),
    }
}

/// Everything is where the file says, and starts as it says.
fn load_igvm(
    machine: &Machine,
    plan: &VmPlan,
    files: &BootFiles<Image>,
    guest: snp::Guest,
) -> Result<LoadedGuest, LaunchError> {
    let (Some(file), Some(boot)) = (files.kernel.igvm(), machine.vcpus.first()) else {
        return Err(LaunchError::Misplaced);
    };
    let (_, cpuid) = machine.chipset.encrypted()?;
    let told = igvm_file::Told::of(plan, &files.cmdline);
    let ram = machine.pages.ram();
    let content = igvm::load(ram.memory(), file, &told, cpuid.bytes())?;
    let policy = file.policy().unwrap_or(kvm::snp::POLICY);
    let guest = guest.load(ram, &content, policy)?;
    boot.enter(&file.processor().registers())?;
    tracing::info!(?file, "loaded");
    Ok(LoadedGuest::Snp(guest))
}

/// What a kernel gets that is entered by ccvm, besides what all of them get.
#[derive(Clone, Copy)]
enum Extras<'a> {
    Seed(&'a [u8; SEED_BYTES]),
    /// No random numbers: they would change the measurement from run to run.
    Encrypted(&'a Encrypted<'a>),
}

fn load_kernel(
    machine: &Machine,
    plan: &VmPlan,
    files: &BootFiles<Image>,
    placement: LinuxPlacement,
    extras: Extras<'_>,
) -> Result<Loaded, LaunchError> {
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
    let memory = machine.pages.ram().memory();
    let loaded = load_files(memory, files, &told, placement)?;
    tracing::info!(start = ?loaded.start, "loaded");
    Ok(loaded)
}

fn enter(machine: &Machine, start: Start) -> Result<(), kvm::Error> {
    let Some(boot) = machine.vcpus.first() else {
        return Ok(());
    };
    match start {
        Start::Long(state) => boot.enter_long_mode(state),
        Start::Protected(state) => boot.enter_protected_mode(state),
    }
}

/// A TD starts where the TDX module has it start: in its firmware.
fn load_td(
    machine: &Machine,
    plan: &VmPlan,
    files: &BootFiles<Image>,
    td: Td,
) -> Result<LoadedGuest, LaunchError> {
    let (Some(firmware), Some(boot)) = (&files.firmware, machine.vcpus.first()) else {
        return Err(LaunchError::OtherMachine);
    };
    let cmdline = (files.cmdline.len() as u64).saturating_add(1);
    let fit = firmware.fit(plan.dram(), files.kernel.file_bytes(), cmdline)?;
    let endpoints = endpoints(plan);
    let windows = plan.pci_windows().iter().map(|window| window.range);
    let devices: Vec<_> = windows.chain([plan.board().ecam()]).collect();
    let told = td::Told {
        dram: plan.dram(),
        devices: &devices,
        machine: acpi_machine(plan, &endpoints),
    };
    let ram = machine.pages.ram();
    td::load(ram.memory(), files, firmware, &fit, &told)?;
    let loaded = td.load(boot, ram, &fit.loaded)?;
    tracing::info!(firmware = %firmware.range(), kernel = %fit.kernel, "loaded");
    Ok(LoadedGuest::Td(loaded, firmware.range()))
}

/// The functions that the guest's IOMMU translates for, if it has one.
fn endpoints(plan: &VmPlan) -> Vec<Bdf> {
    plan.devices().iter().map(|device| device.guest).collect()
}

fn acpi_machine<'a>(plan: &'a VmPlan, endpoints: &'a [Bdf]) -> acpi::Machine<'a> {
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
