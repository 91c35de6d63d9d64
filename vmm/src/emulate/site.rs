//! Where an emulated device is put, and what every one of them needs there.

use std::sync::{Arc, Mutex};

use devices::doorbell::Doorbell;
use devices::pci::Bdf;
use devices::virtio::{VirtioDevice, VirtioPci, VirtioWiring};
use vmm_sys_util::eventfd::EventFd;

use super::EmulateError;
use super::doorbell::KvmDoorbell;
use crate::convert::{Pages, SharedMemory};
use crate::interrupts::Messages;
use crate::pci_bus::PciBus;
use crate::run::EndOfRun;

/// A place on the guest's bus.
pub(super) struct Site<'a> {
    pub(super) guest: Bdf,
    pub(super) pci: &'a PciBus,
    pub(super) pages: &'a Arc<Pages>,
    pub(super) end: &'a Arc<EndOfRun>,
}

/// What catches the notifications of the first rings of a device.
pub(super) struct Doorbells(Vec<Box<dyn Doorbell>>);

impl Doorbells {
    /// The events that they signal.
    pub(super) fn events(&self) -> Result<Vec<EventFd>, EmulateError> {
        let events = self.0.iter().map(|doorbell| doorbell.event().try_clone());
        let events: Result<_, _> = events.collect();
        events.map_err(EmulateError::Worker)
    }
}

/// A device as a function of the guest's bus.
pub(super) type Function<D> = Arc<Mutex<VirtioPci<D, SharedMemory>>>;

impl Site<'_> {
    /// Doorbells for the first `rings` rings.
    pub(super) fn doorbells(&self, rings: usize) -> Result<Doorbells, EmulateError> {
        let doorbell = |_| {
            let doorbell = KvmDoorbell::new(self.pci.site()).map_err(EmulateError::Doorbell)?;
            Ok(Box::new(doorbell) as Box<dyn Doorbell>)
        };
        let doorbells: Result<_, _> = (0..rings).map(doorbell).collect();
        doorbells.map(Doorbells)
    }

    /// The function of `device`, which the guest does not see yet. `what` it is, for whoever has to read
    /// that it is not.
    pub(super) fn function<D: VirtioDevice>(
        &self,
        what: &str,
        device: D,
        doorbells: Doorbells,
    ) -> Result<VirtioPci<D, SharedMemory>, EmulateError> {
        let wiring = VirtioWiring {
            bdf: self.guest,
            controller: Arc::new(Messages(self.pci.site().router().clone())),
            memory: SharedMemory::new(Arc::clone(self.pages)),
            access: self.pci.access(),
            doorbells: doorbells.0,
        };
        VirtioPci::new(device, wiring).map_err(|source| EmulateError::Build {
            what: what.to_owned(),
            source,
        })
    }
}
