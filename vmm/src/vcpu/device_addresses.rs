//! How a guest's accesses to devices arrive.

use iommu::{Gpa, PageRange};
use kvm::Ipa;

/// Which addresses name a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceAddresses {
    /// Its own.
    Plain,
    /// Its own with this bit set. The same address without the bit is private memory that is not
    /// there. I/O ports answer at both: Linux maps their window by `pci_remap_iospace()`, which does
    /// not ask for the state of the pages and leaves the bit out, and a driver that resets its device
    /// by a port (e1000) would take the guest down.
    Shared(u8),
    /// Its own with or without this bit: KVM, which knows the platform, takes the bit off before it
    /// tells.
    Either(u8),
}

impl DeviceAddresses {
    /// The plain address of a device that the guest accesses at `at`, if that names one. `ports` are
    /// where I/O ports answer.
    pub(super) fn plain(self, at: Ipa, ports: Option<PageRange<Gpa>>) -> Option<Gpa> {
        match self {
            Self::Plain => Some(Gpa::new(at.raw())),
            Self::Either(bit) => Some(Gpa::new(at.raw() & !(1 << bit))),
            Self::Shared(bit) => {
                let shared = 1 << bit;
                let plain = Gpa::new(at.raw() & !shared);
                let port = ports.is_some_and(|ports| ports.contains(plain));
                (at.raw() & shared != 0 || port).then_some(plain)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIT: u8 = 35;
    const SHARED: DeviceAddresses = DeviceAddresses::Shared(BIT);

    #[test]
    fn an_emulated_realm_finds_devices_behind_the_shared_bit_only() {
        let device = Gpa::new(0x900_0000);
        let shared = Ipa::shared(device, Some(BIT));
        let plain = Ipa::shared(device, None);
        assert_eq!(SHARED.plain(shared, None), Some(device));
        assert_eq!(SHARED.plain(plain, None), None);
    }

    #[test]
    fn an_emulated_realm_finds_io_ports_with_and_without_the_shared_bit() {
        let port = Gpa::new(0x117_1000);
        let ports = PageRange::new(Gpa::new(0x117_0000), 0x1_0000).ok();
        for at in [Ipa::shared(port, Some(BIT)), Ipa::shared(port, None)] {
            assert_eq!(SHARED.plain(at, ports), Some(port));
        }
        let beyond = Ipa::new(0x118_0000);
        assert_eq!(SHARED.plain(beyond, ports), None);
    }

    #[test]
    fn a_realm_finds_devices_at_the_address_that_kvm_tells() {
        let device = Gpa::new(0x900_0000);
        for at in [Ipa::shared(device, Some(BIT)), Ipa::shared(device, None)] {
            assert_eq!(DeviceAddresses::Either(BIT).plain(at, None), Some(device));
        }
    }
}
