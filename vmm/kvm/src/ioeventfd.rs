//! Stores of the guest that signal an event instead of ending `KVM_RUN`: KVM's ioeventfd.

use hostcall::gate;
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::error::ioctl;
use crate::{Error, Ipa, Vm};

/// Connects and disconnects addresses, by its name in the kernel.
const IOEVENTFD: &str = "KVM_IOEVENTFD";

/// An event that is signalled by a store of any width and value at one address.
pub struct IoEvent {
    vm: Vm,
    event: EventFd,
    at: Option<Ipa>,
}

impl IoEvent {
    /// A new event, at no address.
    ///
    /// # Errors
    /// When the process has no more descriptors.
    pub fn new(vm: Vm) -> Result<Self, Error> {
        let made = gate("eventfd").and_then(|()| EventFd::new(EFD_NONBLOCK));
        let event = made.map_err(|source| Error::Ioctl {
            operation: "have an event",
            call: "eventfd",
            source,
        })?;
        Ok(Self {
            vm,
            event,
            at: None,
        })
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &EventFd {
        &self.event
    }

    /// Has a store at `at` signal the event, and no other address any more.
    ///
    /// # Errors
    /// When KVM refuses, as when another event is there: the event is then at no address.
    pub fn place(&mut self, at: Option<Ipa>) -> Result<(), Error> {
        if self.at == at {
            return Ok(());
        }
        if let Some(old) = self.at.take() {
            let old = IoEventAddress::Mmio(old.raw());
            ioctl(IOEVENTFD, "disconnect an event from an address", || {
                self.vm
                    .fd()
                    .unregister_ioevent(&self.event, &old, NoDatamatch)
            })?;
        }
        if let Some(new) = at {
            let address = IoEventAddress::Mmio(new.raw());
            ioctl(IOEVENTFD, "connect an event to an address", || {
                self.vm
                    .fd()
                    .register_ioevent(&self.event, &address, NoDatamatch)
            })?;
            self.at = Some(new);
        }
        Ok(())
    }
}

impl Drop for IoEvent {
    fn drop(&mut self) {
        if let Err(error) = self.place(None) {
            tracing::warn!("{error}");
        }
    }
}
