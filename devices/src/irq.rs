//! How a device raises interrupts, without knowing what delivers them.
//!
//! `vmm` implements these with KVM's irqfd; tests implement them with plain memory.

use std::io;

use vmm_sys_util::eventfd::EventFd;

use crate::pci::Bdf;

/// A wire of an emulated device (the serial port's, the RTC's).
pub trait IrqLine: Send + Sync {
    /// Drives the wire. Driving it to the level that it has already is harmless.
    fn set_level(&self, high: bool);

    /// Drives the wire high and low again: one edge, where the guest takes edges.
    fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}

/// What a function writes where to signal a message interrupt, as its guest has programmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// The doorbell's guest-physical address, without the shared bit.
    pub address: u64,
    /// The value written there (Arm: the ITS event id).
    pub data: u32,
}

/// One message-interrupt vector: an event that, when signalled, sends the guest its message.
pub trait MsiVector: Send {
    /// Signalled by the physical device's interrupt (VFIO) or by an emulated device.
    fn event(&self) -> &EventFd;
    /// Connects the event to `message`, or disconnects it for `None` (a masked vector).
    ///
    /// # Errors
    /// When KVM refuses the route.
    fn route(&mut self, message: Option<MsiMessage>) -> io::Result<()>;
    /// Whether the event was signalled while disconnected: it is delivered when connected again.
    fn is_pending(&self) -> bool;
}

/// Hands out message-interrupt vectors.
pub trait MsiController: Send + Sync {
    /// A new vector, disconnected, whose messages come from the function `requester`.
    ///
    /// # Errors
    /// When no more routes can be had.
    fn vector(&self, requester: Bdf) -> io::Result<Box<dyn MsiVector>>;
}

/// A PCI INTx pin wired to the interrupt controller: level-triggered, acknowledged by resample.
pub trait IntxLine: Send {
    /// Signalled when the physical device asserts its pin.
    fn trigger(&self) -> &EventFd;
    /// Signalled when the guest has ended the interrupt and the device may be unmasked.
    fn resample(&self) -> &EventFd;
}
