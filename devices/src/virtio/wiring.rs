//! What a virtio function is connected to.

use std::io;
use std::sync::Arc;

use crate::doorbell::Doorbell;
use crate::irq::MsiController;
use crate::pci::{BarError, Bdf};

/// How the driver must give memory to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaAccess {
    /// As it likes: the device reaches all of memory.
    Any,
    /// As the platform says: the device reaches shared pages only, by their shared address. A driver
    /// that does not accept `ACCESS_PLATFORM` does not get the device to work.
    Platform,
}

/// What a virtio function is connected to.
pub struct VirtioWiring<M> {
    /// Where the guest sees the function.
    pub bdf: Bdf,
    /// Where message interrupts go.
    pub controller: Arc<dyn MsiController>,
    /// The memory of the guest that the device may use.
    pub memory: M,
    /// How the driver must give memory to the device.
    pub access: DmaAccess,
    /// What catches the notifications of the first queues; those of the others reach the device by
    /// [`VirtioDevice::notified`](super::VirtioDevice::notified).
    pub doorbells: Vec<Box<dyn Doorbell>>,
}

/// Why there is no function.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A bug in the layout.
    #[error("the BAR of a virtio function is not one")]
    Bar(#[source] BarError),
    /// A bug in the device.
    #[error("{0} queues need more interrupt vectors than there are")]
    TooManyQueues(usize),
    /// The host has no more vectors.
    #[error("no interrupt vectors for a virtio function")]
    Vectors(#[source] io::Error),
}
