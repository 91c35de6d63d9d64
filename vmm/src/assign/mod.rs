//! Assigned devices of one VM: from the plan to the guest's PCI bus, and back to the host.
//!
//! ```text
//!   check ──> open ──> reset ──> [connect: DMA table filled] ──> [attach: on the guest's bus] ── run
//!     │         │                                                                              │
//!     v         v                                                                              v
//!   refused, nothing touched           interrupts off, pages out, reset, DMA table emptied, closed
//! ```
//!
//! All devices share one type1 container, so that one DMA table holds for all of them. The driver
//! that a device is bound to is never changed here.

mod attach;
mod device;
mod dma;
mod interrupts;
mod open;
mod refusal;
mod slots;

use std::io;

pub use attach::{AttachError, Attached};
pub use open::{Assigned, check};

/// An error with its causes, for the traits of the devices.
fn to_io(error: impl std::error::Error) -> io::Error {
    io::Error::other(chain(&error))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
