//! Loads and stores of the guest outside of memory.

use devices::bus::Unclaimed;
use iommu::Gpa;
use kvm::Ipa;

use super::{UNCLAIMED, World};

/// What came of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mmio {
    /// It is done.
    Done,
    /// It is none: the guest has to be told.
    Refused,
}

/// A load; where nothing answers it reads all ones, as on a bus without a device.
pub(super) fn read(world: &World, at: Ipa, data: &mut [u8]) -> Mmio {
    let Some(address) = world.devices.plain(at, world.port_window) else {
        data.fill(0xff);
        return Mmio::Refused;
    };
    if let Err(Unclaimed) = world.bus.read(address, data) {
        data.fill(0xff);
        unclaimed(world, "load", address, data.len());
    }
    Mmio::Done
}

/// A store; where nothing answers it is lost.
pub(super) fn write(world: &World, at: Ipa, data: &[u8]) -> Mmio {
    let Some(address) = world.devices.plain(at, world.port_window) else {
        return Mmio::Refused;
    };
    if let Err(Unclaimed) = world.bus.write(address, data) {
        unclaimed(world, "store", address, data.len());
    }
    Mmio::Done
}

fn unclaimed(world: &World, what: &str, at: Gpa, bytes: usize) {
    world.stats.exits.unclaimed.add_one();
    if let Some(skipped) = UNCLAIMED.permit() {
        tracing::debug!(
            skipped,
            "{what} of {bytes} bytes at {at}: nothing answers there"
        );
    }
}
