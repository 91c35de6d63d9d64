//! Guest memory in which no page changes hands while a device works with it.

use vm_memory::{GuestMemory, GuestMemoryMmap};

/// The memory of the guest that a device may use.
pub trait DeviceMemory: Send + Sync {
    /// The same, held still.
    type Held<'a>: GuestMemory<Bitmap = ()>
    where
        Self: 'a;

    /// Holds the memory still: until what this returns is dropped, no page of it is taken away from the
    /// device. A thread that holds it must not ask again, and must not wait for the guest.
    fn hold(&self) -> Self::Held<'_>;
}

/// Plain memory, whose pages are the device's for good.
impl DeviceMemory for GuestMemoryMmap {
    type Held<'a> = Self;

    fn hold(&self) -> Self {
        self.clone()
    }
}
