//! Loads and stores of the guest outside of memory.

use devices::bus::Unclaimed;
use devices::rate_limit::RateLimit;
use iommu::Gpa;
use kvm::Ipa;

use super::World;

static UNCLAIMED: RateLimit = RateLimit::per_second(5);

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
    let Some(address) = device_address(at, world.shared_bit) else {
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
    let Some(address) = device_address(at, world.shared_bit) else {
        return Mmio::Refused;
    };
    if let Err(Unclaimed) = world.bus.write(address, data) {
        unclaimed(world, "store", address, data.len());
    }
    Mmio::Done
}

/// The plain address of a device. Where the platform has a shared bit devices are shared, and the
/// same address without the bit is private memory that is not there.
fn device_address(at: Ipa, shared_bit: Option<u8>) -> Option<Gpa> {
    match shared_bit {
        None => Some(Gpa::new(at.raw())),
        Some(bit) => {
            let shared = 1 << bit;
            (at.raw() & shared != 0).then(|| Gpa::new(at.raw() & !shared))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_finds_devices_behind_the_shared_bit_only() {
        let at = Ipa::new(0x900_0000);
        assert_eq!(device_address(at, None), Some(Gpa::new(0x900_0000)));
        assert_eq!(device_address(at, Some(35)), None);
        let shared = Ipa::new(1 << 35 | 0x900_0000);
        assert_eq!(device_address(shared, Some(35)), Some(Gpa::new(0x900_0000)));
    }
}
