//! KVM's software-protected VM (x86-64): private memory without a processor that protects it, for
//! development. docs/platforms/sw-protected.md has the rest.
//!
//! ```text
//!   guest ─ vmmcall: MAP_GPA_RANGE ─► KVM ─ exit ─► map_gpa_range ─► Pages: tables, attribute, memory
//!     ▲                                                                            │
//!     └──────────────────────────── 0, or minus an error number ◄──────────────────┘
//! ```
//! All memory starts shared. A page has one address whatever its state, and its state is what the guest
//! has said last: an access asks for nothing. So a memory fault is no wish. Either another vCPU converted
//! the page while KVM dealt with the access, which is right at the next try, or the host has no memory.

use std::sync::Arc;

use kvm::Fault;
use kvm::sw_protected::MAP_GPA_RANGE;

use super::map_gpa_range;
use super::page_exits::{LastFault, PageExitError, PageExits, changes};
use crate::convert::Pages;

/// Converts pages for the vCPUs of such a VM.
pub struct Conversions {
    pages: Arc<Pages>,
}

impl Conversions {
    /// For a VM with these pages.
    #[must_use]
    pub fn new(pages: Arc<Pages>) -> Self {
        Self { pages }
    }
}

impl PageExits for Conversions {
    fn memory_fault(&self, fault: Fault, last: &mut LastFault) -> Result<(), PageExitError> {
        // A conversion that is under way is over when this has the lock.
        match last.repeats(fault, changes(&self.pages)) {
            false => Ok(()),
            true => Err(PageExitError::Lost(fault.at)),
        }
    }

    fn hypercall(&self, function: u64, arguments: [u64; 4]) -> Option<i64> {
        (function == MAP_GPA_RANGE).then(|| map_gpa_range::answer(&self.pages, arguments))
    }
}

#[cfg(test)]
mod tests;
