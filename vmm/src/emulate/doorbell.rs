//! The devices' doorbells over KVM's ioeventfd.

use std::io;
use std::ops::Range;

use devices::doorbell::Doorbell;
use devices::passthrough::BarWindow;
use devices::pci::AddressSpace;
use iommu::Gpa;
use kvm::{IoEvent, Ipa};
use vmm_sys_util::eventfd::EventFd;

use crate::causes::chain;
use crate::pci_bus::PciSite;

/// The bytes of a notification's address.
const WIDTH: u64 = 4;

/// A doorbell that the guest may have in the windows of its PCI bus, and nowhere else.
pub(super) struct KvmDoorbell {
    event: IoEvent,
    windows: Vec<Range<u64>>,
    shared_bit: Option<u8>,
}

impl KvmDoorbell {
    /// A doorbell for a function on `pci`.
    pub(super) fn new(pci: &PciSite) -> Result<Self, kvm::Error> {
        let memory = |window: &BarWindow| match window.space {
            AddressSpace::Memory => Some(window.addresses.clone()),
            AddressSpace::Io => None,
        };
        Ok(Self {
            event: IoEvent::new(pci.vm().clone())?,
            windows: pci.windows().iter().filter_map(memory).collect(),
            shared_bit: pci.shared_bit(),
        })
    }

    fn is_in_a_window(&self, address: u64) -> bool {
        let end = address.checked_add(WIDTH);
        let mut windows = self.windows.iter();
        windows.any(|window| window.start <= address && end.is_some_and(|end| end <= window.end))
    }
}

impl Doorbell for KvmDoorbell {
    fn event(&self) -> &EventFd {
        self.event.event()
    }

    fn place(&mut self, address: Option<u64>) -> io::Result<()> {
        // A BAR that is elsewhere is at no address: a guest sizes it by writing ones.
        let address = address.filter(|address| self.is_in_a_window(*address));
        let at = address.map(|address| Ipa::shared(Gpa::new(address), self.shared_bit));
        let placed = self.event.place(at);
        placed.map_err(|error| io::Error::other(chain(&error)))
    }
}
