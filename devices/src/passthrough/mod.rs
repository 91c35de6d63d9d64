//! An assigned function as the guest sees it.
//!
//! ```text
//!                guest: configuration and BAR accesses that exit        loads and stores
//!                          │                                                   │
//!   PassthroughFunction ───┼──> ConfigSpace   ids, BARs, command, MSI, MSI-X   │
//!                          │       │ after each write: what follows from it?   │
//!                          ├──> Decoder ───── BarMapper: pages in the guest ───┤ no exit
//!                          ├──> Signalling ── events to MSI routes or the pin  │
//!                          v                                                   v
//!                       PhysicalFunction ───────────────────────────────── the device
//! ```
//!
//! Registers are data. After every write the function works out, from the registers alone, which
//! BARs must answer where and which interrupts must be on, and makes it so. There is no other state
//! that could disagree with the registers.
//!
//! The guest never moves the device's own BARs, never sees a capability that is not vouched for in
//! `filter.rs`, and never reaches the device's own MSI-X table.

mod decode;
#[cfg(test)]
mod fake;
mod filter;
mod function;
mod interface;
mod lockdown;
mod physical;
mod signalling;
pub mod tdi;
#[cfg(test)]
mod tests;

pub use decode::{BarWindow, Span};
pub use filter::BuildError;
pub use function::{PassthroughFunction, Wiring};
pub use interface::{Acceptance, AcceptanceError, InterfaceError, InterfaceStatus, TrustedDma};
pub use lockdown::Withheld;
pub use physical::{BarMapper, PhysicalFunction, Signals};
