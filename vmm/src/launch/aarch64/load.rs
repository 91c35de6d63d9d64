//! The guest's memory gets what it boots: kernel, device tree, initial RAM disk.

use std::sync::Arc;

use kvm::Vcpu;

use super::{Guest, LoadedGuest};
use crate::assign::Interfaces;
use crate::boot::BootFiles;
use crate::boot::aarch64::fdt::SEED_BYTES;
use crate::boot::aarch64::program::affinity;
use crate::boot::aarch64::{Image, Placement, Program, Seed, load as load_segments};
use crate::launch::LaunchError;
use crate::launch::created::Machine;
use crate::measure::InitialContent;
use crate::plan::VmPlan;
use crate::platform::Platform;
use crate::platform::cca;
use crate::platform::emulated_realm::RealmVm;
use crate::random;

/// Puts everything in its place and the first processor at its start; in a Realm it is measured.
pub(in crate::launch) fn load(
    machine: &Machine,
    plan: &VmPlan,
    files: &BootFiles<Image>,
    placement: Placement,
    guest: Guest,
) -> Result<LoadedGuest, LaunchError> {
    let realm = machine.chipset.realm.as_ref();
    let has_devices = !plan.devices().is_empty() || !plan.ports().is_empty();
    if let Some(realm) = realm.filter(|_| has_devices) {
        realm.assign(Arc::<Interfaces>::clone(machine.assigned.interfaces()));
    }
    let seed = seed(plan.platform())?;
    check_affinities(&machine.vcpus)?;
    let program = Program::new(plan, files, placement);
    let tree = program.device_tree(seed.as_ref().map_or(Seed::None, Seed::Random))?;
    let segments = program.segments(&tree).map_err(LaunchError::Segment)?;
    load_segments(machine.pages.ram().memory(), &segments)?;
    if let Some(realm) = realm {
        measure(realm, &program)?;
    }
    let guest = match guest {
        Guest::Unmeasured => LoadedGuest::Unmeasured,
        Guest::Realm(realm) => {
            let parts = segments.iter().map(|part| (part.start(), part.bytes()));
            let regions = cca::regions(parts).map_err(LaunchError::Segment)?;
            let loaded = realm.load(plan.dram(), machine.pages.ram(), regions)?;
            LoadedGuest::Realm(loaded)
        }
    };
    let entry = program.entry();
    if let Some(boot) = machine.vcpus.first() {
        boot.set_pc(entry.pc.raw())?;
        boot.set_x(0, entry.x0.raw())?;
    }
    tracing::info!(kernel = %entry.pc, fdt = %entry.x0, "loaded");
    Ok(guest)
}

/// Random numbers for the guest. A Realm gets none: they would change its measurement from run to run,
/// and its host's numbers are nothing that it could trust.
fn seed(platform: Platform) -> Result<Option<[u8; SEED_BYTES]>, LaunchError> {
    if platform == Platform::Cca {
        return Ok(None);
    }
    let seed = random::bytes().map_err(LaunchError::host("get random numbers"))?;
    Ok(Some(seed))
}

/// What the guest starts from goes into its initial measurement, but for the random numbers that it
/// gets, so that the value can be foretold.
fn measure(realm: &RealmVm, program: &Program<'_>) -> Result<(), LaunchError> {
    let tree = program.device_tree(Seed::None)?;
    let segments = program.segments(&tree).map_err(LaunchError::Segment)?;
    let content = InitialContent::of(program, &segments);
    realm.measure(&content).map_err(LaunchError::Measure)
}

/// The device tree names processors as KVM has to.
fn check_affinities(vcpus: &[Vcpu]) -> Result<(), LaunchError> {
    for (index, vcpu) in (0..).zip(vcpus) {
        let found = vcpu.affinity()?;
        if found != affinity(index) {
            return Err(LaunchError::Affinity { index, found });
        }
    }
    Ok(())
}
