//! Devices that come and go while the VM runs.
//!
//! ```text
//!   plug:    opened, reset ─► table filled ─► function with its interface ─► in the slot: guest is told
//!   unplug:  guest is asked ─► gives it up, or it is torn out ─► out of the slot ─► reset, interface gone
//!                                                           ─► table emptied ─► closed: the host's again
//! ```
//! Each comes with a table of its own, whatever the VM's other devices share, so that it can go by itself.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::pci::{Bdf, PortIdentity, RootPort, SlotState};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::attach::{AttachError, Attached, assigned, entry};
use super::dma::Fences;
use super::group::OpenGroup;
use super::virtual_iommu::Front;
use crate::convert::Pages;
use crate::diagnostic::{Code, Diagnostic};
use crate::host::facts::PciAddress;
use crate::interrupts::Messages;
use crate::pci_bus::{PciBus, PciSite};
use crate::plan::{Admitted, PlannedPort, VmPlan};
use crate::platform::Platform;

/// The slots of a VM, and what the devices in them are connected to.
pub(super) struct Slots {
    platform: Platform,
    site: PciSite,
    pages: Arc<Pages>,
    front: Front,
    fences: Fences,
    list: Vec<Slot>,
    released: Arc<EventFd>,
}

struct Slot {
    planned: PlannedPort,
    port: Arc<Mutex<RootPort>>,
}

impl Slot {
    fn port(&self) -> MutexGuard<'_, RootPort> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has become of a device that was to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplugging {
    /// Its guest is asked to give it up.
    Asked,
    /// Its guest is at it.
    Leaving,
    /// It is the host's again.
    Gone,
}

/// Why a device does not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotUnplugged {
    /// The VM was started with it.
    #[error("the VM was started with it: only what came into a slot leaves before the VM does")]
    NotInASlot,
}

impl Slots {
    /// The ports of `plan`, on the guest's bus.
    ///
    /// # Errors
    /// When the host has no event for them, or a place on the bus is taken.
    pub(super) fn new(
        plan: &VmPlan,
        pages: &Arc<Pages>,
        pci: &mut PciBus,
        fences: Fences,
    ) -> Result<Self, AttachError> {
        let released = EventFd::new(EFD_NONBLOCK).map_err(AttachError::Port)?;
        let released = Arc::new(released);
        let mut list = Vec::new();
        for &planned in plan.ports() {
            let identity = PortIdentity {
                bdf: planned.guest,
                slot: planned.number,
                bus: planned.card.bus(),
            };
            let messages = Messages(pci.site().router().clone());
            let port = RootPort::new(identity, &messages, Arc::clone(&released));
            let port = Arc::new(Mutex::new(port.map_err(AttachError::Port)?));
            pci.insert(planned.guest, Arc::<Mutex<RootPort>>::clone(&port))?;
            list.push(Slot { planned, port });
        }
        Ok(Self {
            platform: plan.platform(),
            site: pci.site().behind_a_bridge(),
            pages: Arc::clone(pages),
            front: Front::of(plan),
            fences,
            list,
            released,
        })
    }

    fn of(&self, card: Bdf) -> Option<&Slot> {
        self.list.iter().find(|slot| slot.planned.card == card)
    }
}

impl Attached {
    /// Signalled when a guest has given up a device that it was asked for: [`Attached::take_back`] is due.
    /// `None` where no device comes later.
    ///
    /// # Errors
    /// When the process has no more descriptors.
    pub fn released(&self) -> io::Result<Option<EventFd>> {
        let slots = self.slots.as_ref();
        slots.map(|slots| slots.released.try_clone()).transpose()
    }

    /// The slot with this number, or the first that is free.
    ///
    /// # Errors
    /// When there is none, or something is in it.
    pub fn free_slot(&self, number: Option<u8>) -> Result<PlannedPort, Diagnostic> {
        let refused = |message: String, help: &str| {
            Err(Diagnostic::error(Code::NoSlots, message).with_help(help))
        };
        let slots = self.slots.as_ref().map_or(&[][..], |slots| &slots.list);
        let wanted = |slot: &&Slot| number.is_none_or(|number| slot.planned.number == number);
        if slots.is_empty() {
            let help = "start the VM with `hotplug-ports`";
            return refused("the VM has no slots".to_owned(), help);
        }
        let mut candidates = slots.iter().filter(wanted).peekable();
        if candidates.peek().is_none() {
            let message = format!("the VM has no slot {}", number.unwrap_or(0));
            return refused(message, &format!("its slots are 1 to {}", slots.len()));
        }
        match candidates.find(|slot| !slot.port().state().has_card()) {
            Some(slot) => Ok(slot.planned),
            None => {
                let which =
                    number.map_or("every slot".to_owned(), |number| format!("slot {number}"));
                refused(format!("{which} has a device"), "`unplug` one of them")
            }
        }
    }

    /// Puts a device into the slot of `port`; its guest is told.
    ///
    /// # Errors
    /// What stands in the way. The device is the host's, as before.
    pub fn plug(
        &mut self,
        admitted: &Admitted,
        port: &PlannedPort,
        sysfs: &Path,
    ) -> Result<(), Diagnostic> {
        let planned = &admitted.device;
        let Some(slots) = &self.slots else {
            return self.free_slot(None).map(drop);
        };
        let opened = OpenGroup::of_one(planned, admitted.backend, sysfs)?;
        let group = opened.connect(&slots.front, &slots.pages)?;
        let Some(member) = group.members().first() else {
            return Ok(());
        };
        let function = assigned(&slots.site, slots.platform, (&group, member), port.guest)?;
        let function = Arc::new(Mutex::new(function));
        let guest = planned.guest;
        slots.fences.watch(&group);
        self.interfaces
            .insert(guest, entry(&group, member, &function));
        self.functions.insert(guest, Arc::clone(&function));
        self.groups.push(group);
        let slot = self.slots.as_ref().and_then(|slots| slots.of(guest));
        if let Some(Err(error)) = slot.map(|slot| slot.port().insert(function)) {
            self.forget(guest);
            let message = format!("slot {} takes no device: {error}", port.number);
            return Err(Diagnostic::error(Code::DeviceNotAttached, message));
        }
        tracing::info!("{}: plugged into slot {}", planned.pci, port.number);
        Ok(())
    }

    /// Asks the guest for a device, once more if it did not hear. One that the guest has not taken, or has
    /// turned off, goes at once.
    ///
    /// # Errors
    /// When the device is in no slot.
    pub fn unplug(&mut self, guest: Bdf) -> Result<Unplugging, NotUnplugged> {
        let slot = self.slots.as_ref().and_then(|slots| slots.of(guest));
        let slot = slot.ok_or(NotUnplugged::NotInASlot)?;
        let (state, is_busy) = {
            let mut port = slot.port();
            (port.ask(), port.is_busy())
        };
        match state {
            SlotState::Released | SlotState::Empty => self.tear_out(guest),
            SlotState::Off | SlotState::On | SlotState::Leaving if is_busy => {
                Ok(Unplugging::Leaving)
            }
            SlotState::Off | SlotState::On | SlotState::Leaving => Ok(Unplugging::Asked),
        }
    }

    /// Takes a device out of its slot, whatever the guest does with it.
    ///
    /// # Errors
    /// When the device is in no slot.
    pub fn tear_out(&mut self, guest: Bdf) -> Result<Unplugging, NotUnplugged> {
        let slot = self.slots.as_ref().and_then(|slots| slots.of(guest));
        let slot = slot.ok_or(NotUnplugged::NotInASlot)?;
        drop(slot.port().remove());
        self.forget(guest);
        Ok(Unplugging::Gone)
    }

    /// Takes out every device that a guest has given up, and gives it back to the host.
    pub fn take_back(&mut self) {
        let slots = self.slots.as_ref();
        let slots = slots.map_or(&[][..], |slots| &slots.list);
        let released = slots
            .iter()
            .filter(|slot| slot.port().state() == SlotState::Released);
        let released: Vec<Bdf> = released.map(|slot| slot.planned.card).collect();
        for guest in released {
            // In a slot, as was just seen.
            let _ = self.tear_out(guest);
        }
    }

    /// The slot that a device is in, by its number.
    #[must_use]
    pub fn slot_of(&self, guest: Bdf) -> Option<u8> {
        let slot = self.slots.as_ref().and_then(|slots| slots.of(guest));
        slot.map(|slot| slot.planned.number)
    }

    /// Whether the VM has a device of the host.
    #[must_use]
    pub fn has(&self, host: PciAddress) -> bool {
        self.interfaces.guest_of(host).is_some()
    }

    /// Gives a device that nothing on the guest's bus leads to back to the host: it stops, its table is
    /// emptied, and it is closed.
    fn forget(&mut self, guest: Bdf) {
        if let Some(function) = self.functions.remove(&guest) {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            function.shut_down();
        }
        self.interfaces.remove(guest);
        let Some(at) = self.groups.iter().position(|group| group.has(guest)) else {
            return;
        };
        let group = self.groups.remove(at);
        if let Some(slots) = &self.slots {
            slots.fences.forget(&group);
        }
        for member in group.members() {
            tracing::info!("{}: unplugged", member.planned().pci);
        }
    }
}
