//! Virtio devices on PCI (virtio 1.2, 4.1), and the one that there is: the IOMMU.
//!
//! ```text
//!             guest: configuration space             guest: BAR 0                guest memory
//!                         │                               │                           │
//!   VirtioPci ────────────┼──► capabilities, BAR          ├──► common configuration   │
//!   (PciFunction)         ├──► MSI-X enable, mask         ├──► ISR, MSI-X tables      │
//!                         │                               ├──► device configuration ──┼──► VirtioDevice
//!                         └──► window onto BAR 0          └──► notification ─► Turn ──┴──►  (iommu)
//! ```
//! A device chooses how its rings are served. The IOMMU's are served by the vCPU that notifies, before it
//! goes on: a request costs one exit. Where a request takes time, a thread has the ring:
//!
//! ```text
//!   notification ─► Doorbell (ioeventfd) ─► worker ─┬─► Virtqueue::turn ─► chain, work, used ─► interrupt
//!                                                  └─► serve_apart: the same, and others may take the next
//! ```

pub mod block;
mod chain;
mod common;
pub mod console;
mod counters;
mod device;
#[cfg(test)]
mod driver;
mod function;
mod identity;
mod interrupts;
pub mod iommu;
mod layout;
mod memory;
pub mod net;
mod queue;
pub mod ring;
pub mod rng;
pub mod status;
#[cfg(test)]
mod tests;
pub mod vhost;
mod virtqueue;
mod wiring;

pub use counters::{QueueCounters, QueueCounts};
pub use device::VirtioDevice;
pub use function::VirtioPci;
pub use layout::BAR_BYTES;
pub use memory::DeviceMemory;
pub use virtqueue::Virtqueue;
pub use wiring::{BuildError, DmaAccess, VirtioWiring};

/// Features of the transport (virtio 1.2, 6). The device offers those of the ring, if it wants them.
pub mod feature {
    /// A descriptor can name a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Each side says from which index on it wants to be notified.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device is not a legacy one.
    pub const VERSION_1: u64 = 1 << 32;
    /// The device reaches memory by way of the platform's IOMMU and restrictions: in a confidential VM
    /// the driver then gives it shared pages only, by their shared address.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
}
