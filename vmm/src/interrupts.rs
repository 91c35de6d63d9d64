//! The devices' interrupt traits over KVM's irqfd.

use std::io;

use devices::irq::{IntxLine, MsiController, MsiMessage, MsiVector};
use devices::pci::Bdf;
use kvm::{IrqRouter, LineIrq, MessageIrq};
use vmm_sys_util::eventfd::EventFd;

use crate::causes::chain;

/// Message interrupts by way of the ITS, which knows a function by its requester id.
pub(crate) struct Messages(pub(crate) IrqRouter);

impl MsiController for Messages {
    fn vector(&self, requester: Bdf) -> io::Result<Box<dyn MsiVector>> {
        let irq = self.0.message(requester.requester_id().into());
        Ok(Box::new(Message(irq.map_err(|error| to_io(&error))?)))
    }
}

struct Message(MessageIrq);

impl MsiVector for Message {
    fn event(&self) -> &EventFd {
        self.0.event()
    }

    fn route(&mut self, message: Option<MsiMessage>) -> io::Result<()> {
        let routed = match message {
            Some(MsiMessage { address, data }) => self.0.connect(address, data),
            None => self.0.disconnect(),
        };
        routed.map_err(|error| to_io(&error))
    }

    fn is_pending(&self) -> bool {
        self.0.is_pending()
    }
}

/// The wire of a function's interrupt pin.
pub(crate) struct Pin(pub(crate) LineIrq);

impl IntxLine for Pin {
    fn trigger(&self) -> &EventFd {
        self.0.trigger()
    }

    fn resample(&self) -> &EventFd {
        self.0.resample()
    }
}

fn to_io(error: &kvm::Error) -> io::Error {
    io::Error::other(chain(error))
}
