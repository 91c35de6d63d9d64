//! How a store of the guest wakes a thread of this process, without knowing what catches the store.
//!
//! `vmm` implements this with KVM's ioeventfd, for which the vCPU does not leave the guest's world for
//! long; tests implement it with a bare event.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// An event that the guest signals by a store.
pub trait Doorbell: Send {
    /// The event.
    fn event(&self) -> &EventFd;

    /// Has a store at this guest-physical address, without the shared bit, signal the event instead of
    /// reaching the bus; for `None` all stores reach the bus again.
    ///
    /// # Errors
    /// When the host cannot have it so: stores then reach the bus.
    fn place(&mut self, address: Option<u64>) -> io::Result<()>;
}
