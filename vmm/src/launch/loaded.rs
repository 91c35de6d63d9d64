//! The third stage: the guest's memory holds what it boots.

use iommu::{PAGE_SIZE, PageRange};

use crate::boot::BootFiles;
use crate::boot::aarch64::fdt::{self, Board, Chosen, PsciConduit, SEED_BYTES};
use crate::boot::aarch64::placement::FDT_BYTES;
use crate::boot::aarch64::{Placement, load};
use crate::boot::initrd::Initrd;
use crate::plan::VmPlan;
use crate::platform::Platform;
use crate::platform::emulated_realm::RealmVm;

use super::created::Machine;
use super::{Created, Finalized, LaunchError};

/// A VM with a program that has not been measured or entered.
pub struct Loaded {
    pub(super) plan: VmPlan,
    pub(super) machine: Machine,
}

impl Loaded {
    pub(super) fn new(created: Created) -> Result<Self, LaunchError> {
        let seed = seed().map_err(LaunchError::host("get random numbers"))?;
        let tree = device_tree(&created, &seed)?;
        let unseeded = device_tree(&created, &[0; SEED_BYTES])?;
        let Created {
            plan,
            mut files,
            placement,
            machine,
            ..
        } = created;
        load(machine.pages.ram().memory(), &mut files, tree, placement)?;
        if let Some(realm) = &machine.realm {
            measure(realm, &files, placement, &unseeded)?;
        }
        if let Some(boot) = machine.vcpus.first() {
            boot.set_pc(placement.kernel.raw())?;
            boot.set_x(0, placement.fdt.raw())?;
        }
        tracing::info!(kernel = %placement.kernel, fdt = %placement.fdt, "loaded");
        Ok(Self { plan, machine })
    }

    /// Tells the platform that nothing is added to the guest's initial memory any more.
    ///
    /// # Errors
    /// When the platform refuses.
    pub fn finalize(self) -> Result<Finalized, LaunchError> {
        Finalized::new(self)
    }
}

/// What the guest starts from goes into its initial measurement: the device tree, with the command
/// line in it, but without the random numbers that it has, so that the value can be foretold.
fn measure(
    realm: &RealmVm,
    files: &BootFiles,
    placement: Placement,
    tree: &[u8],
) -> Result<(), LaunchError> {
    let initrd = files.initrd.as_ref().map(Initrd::bytes);
    let initrd = placement.initrd.zip(initrd);
    let kernel = Some((placement.kernel, files.kernel.memory_bytes()));
    for (start, bytes) in kernel.into_iter().chain(initrd) {
        let range = PageRange::new(start, bytes.next_multiple_of(PAGE_SIZE));
        let range = range.map_err(LaunchError::Measured)?;
        realm.measure(range).map_err(LaunchError::Measure)?;
    }
    let range = PageRange::new(placement.fdt, FDT_BYTES).map_err(LaunchError::Measured)?;
    realm.measure_content(range, tree);
    Ok(())
}

fn device_tree(created: &Created, seed: &[u8; SEED_BYTES]) -> Result<Vec<u8>, LaunchError> {
    let affinities = created
        .machine
        .vcpus
        .iter()
        .map(kvm::aarch64::Vcpu::affinity)
        .collect::<Result<Vec<u64>, _>>()?;
    let board = Board {
        dram: created.plan.dram(),
        mmio: &created.mmio,
        pci_windows: created.plan.pci_windows(),
        affinities: &affinities,
        psci: conduit(created.plan.platform()),
    };
    let initrd = created.files.initrd.as_ref();
    let chosen = Chosen {
        cmdline: &created.files.cmdline,
        initrd: created.placement.initrd.zip(initrd.map(Initrd::bytes)),
        seed,
    };
    fdt::write(&board, &chosen).map_err(LaunchError::Fdt)
}

/// A kernel looks for the RMM of a Realm only where it reaches PSCI by `smc`.
fn conduit(platform: Platform) -> PsciConduit {
    match platform {
        Platform::EmulatedRealm | Platform::Cca => PsciConduit::Smc,
        Platform::None | Platform::Pkvm | Platform::SwProtected | Platform::Snp | Platform::Tdx => {
            PsciConduit::Hvc
        }
    }
}

fn seed() -> std::io::Result<[u8; SEED_BYTES]> {
    let mut seed = [0; SEED_BYTES];
    let mut filled = 0;
    while let Some(rest) = seed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(seed)
}
