//! The guest's memory gets what it boots: kernel, initial RAM disk, ACPI tables, memory map.

use super::{Guest, LoadedGuest};
use crate::boot::x86_64::program::{self, Extras, load_program};
use crate::boot::x86_64::{Encrypted, Image, LinuxPlacement, Loaded, Placement, Start, igvm, td};
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
            let content = snp::layout(plan.dram(), &loaded.parts, SpecialPages::OF_LINUX)?;
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

fn load_kernel(
    machine: &Machine,
    plan: &VmPlan,
    files: &BootFiles<Image>,
    placement: LinuxPlacement,
    extras: Extras<'_>,
) -> Result<Loaded, LaunchError> {
    let memory = machine.pages.ram().memory();
    let loaded = load_program(memory, plan, files, placement, extras)?;
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
    let endpoints = program::endpoints(plan);
    let windows = plan.pci_windows().iter().map(|window| window.range);
    let devices: Vec<_> = windows.chain([plan.board().ecam()]).collect();
    let told = td::Told {
        dram: plan.dram(),
        devices: &devices,
        machine: program::acpi_machine(plan, &endpoints),
    };
    let ram = machine.pages.ram();
    td::load(ram.memory(), files, firmware, &fit, &told)?;
    let loaded = td.load(boot, ram, &fit.loaded)?;
    tracing::info!(firmware = %firmware.range(), kernel = %fit.kernel, "loaded");
    Ok(LoadedGuest::Td(loaded, firmware.range()))
}
