//! The gate that every call to VFIO, iommufd and KVM passes, so that debug builds can be told to make
//! one of them fail.
//!
//! ```text
//!   crate vfio ──┐                       ┌── release: open, and compiled away
//!                ├─► gate("KVM_RUN")? ───┤
//!   crate kvm ───┘                       └── debug: counts, lists, or fails the Nth with ERRNO
//! ```
//!
//! A call that is made to fail is not made: what a kernel does half-way is not shown by this.
#![forbid(unsafe_code)]

#[cfg(debug_assertions)]
mod fault;

use std::io;

#[cfg(debug_assertions)]
pub use fault::{Fault, FaultSyntax, Mode, arm};

/// Lets a call to the host's kernel, by its name there, go ahead.
///
/// # Errors
/// In debug builds, when the call is to fail. Never in release builds.
#[inline]
pub fn gate(call: &'static str) -> io::Result<()> {
    #[cfg(debug_assertions)]
    fault::pass(call)?;
    #[cfg(not(debug_assertions))]
    let _ = call;
    Ok(())
}
