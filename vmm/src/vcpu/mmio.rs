//! Loads and stores of the guest outside of memory.

use devices::bus::Unclaimed;
use devices::rate_limit::RateLimit;
use iommu::{Gpa, PageRange};
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
    let Some(address) = device_address(world, at) else {
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
    let Some(address) = device_address(world, at) else {
        return Mmio::Refused;
    };
    if let Err(Unclaimed) = world.bus.write(address, data) {
        unclaimed(world, "store", address, data.len());
    }
    Mmio::Done
}

/// The plain address of a device that the guest accesses at `at`.
fn device_address(world: &World, at: Ipa) -> Option<Gpa> {
    match world.shared_bit {
        None => Some(Gpa::new(at.raw())),
        Some(bit) => realm_device_address(at, bit, world.ports),
    }
}

/// Where the platform has a shared bit devices are shared, and the same address without the bit is
/// private memory that is not there. I/O ports answer at both: Linux maps their window by
/// `pci_remap_iospace()`, which does not ask for the state of the pages and leaves the bit out, and
/// a driver that resets its device by a port (e1000) would take the guest down.
fn realm_device_address(at: Ipa, bit: u8, ports: Option<PageRange<Gpa>>) -> Option<Gpa> {
    let shared = 1 << bit;
    let plain = Gpa::new(at.raw() & !shared);
    let reachable = at.raw() & shared != 0 || ports.is_some_and(|ports| ports.contains(plain));
    reachable.then_some(plain)
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

    const BIT: u8 = 35;

    #[test]
    fn a_realm_finds_devices_behind_the_shared_bit_only() {
        let device = Gpa::new(0x900_0000);
        let shared = Ipa::shared(device, Some(BIT));
        let plain = Ipa::shared(device, None);
        assert_eq!(realm_device_address(shared, BIT, None), Some(device));
        assert_eq!(realm_device_address(plain, BIT, None), None);
    }

    #[test]
    fn a_realm_finds_io_ports_with_and_without_the_shared_bit() {
        let port = Gpa::new(0x117_1000);
        let ports = PageRange::new(Gpa::new(0x117_0000), 0x1_0000).ok();
        for at in [Ipa::shared(port, Some(BIT)), Ipa::shared(port, None)] {
            assert_eq!(realm_device_address(at, BIT, ports), Some(port));
        }
        let beyond = Ipa::new(0x118_0000);
        assert_eq!(realm_device_address(beyond, BIT, ports), None);
    }
}
