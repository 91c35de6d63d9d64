//! Assigned devices of one VM: from the plan to the guest's PCI bus, and back to the host.
//!
//! ```text
//!   check ──> open ──> reset ──> [connect: DMA table filled] ──> [attach: on the guest's bus] ── run
//!     │         │                                                                              │
//!     v         v                                                                              v
//!   refused, nothing touched           interrupts off, pages out, reset, DMA table emptied, closed
//! ```
//!
//! ```text
//!   Assigned ── connect ──> Connected ── attach ──> Attached
//! ```
//!
//! A device that comes while the VM runs goes the same way into a slot, and back when it leaves.
//!
//! Devices come in [`Group`]s: those of a group share a DMA table, and what happens to the table
//! happens to all of them. The driver that a device is bound to is never changed here.

mod attach;
mod device;
mod dma;
mod group;
mod hotplug;
mod interface;
mod open;
mod refusal;
mod replacement;
mod slots;
mod virtual_iommu;

use std::io;

use crate::causes::chain;

pub use attach::{AttachError, Attached};
pub use dma::Connected;
pub use group::{Group, Member};
pub use hotplug::{NotUnplugged, Unplugging};
pub use interface::{InterfaceError, Interfaces, Tsm};
pub use open::{Assigned, check};
pub use virtual_iommu::VirtualIommu;

/// An error with its causes, for the traits of the devices.
fn to_io(error: impl std::error::Error) -> io::Error {
    io::Error::other(chain(&error))
}
