//! Memory faults that are wishes: of a guest whose access says which form of a page it means.

use std::sync::{Mutex, PoisonError};

use devices::rate_limit::RateLimit;
use iommu::{Gpa, PAGE_SIZE, PageRange, Visibility};
use kvm::Fault;

use super::PageExitError;
use crate::convert::Pages;

/// A guest that asks for the state of what is no memory does not fill the log.
static ASTRAY: RateLimit = RateLimit::per_second(5);

/// Where copies of the initial content are left over in the shared form.
pub(super) struct Copies(Mutex<Vec<PageRange<Gpa>>>);

impl Copies {
    /// For content that was loaded from `loaded`.
    pub(super) const fn new(loaded: Vec<PageRange<Gpa>>) -> Self {
        Self(Mutex::new(loaded))
    }

    /// Frees what KVM has copied from. It runs the guest by now, and has no more use for it; before any
    /// page is shared, so that what is in the shared form then is the guest's own.
    pub(super) fn free(&self, pages: &Pages) {
        // Held to the end: another vCPU must not share a page that is about to be freed.
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for range in loaded.drain(..) {
            if let Err(error) = pages.ram().discard(range, Visibility::Shared) {
                tracing::warn!("a copy of what was loaded at {range} stays: {error}");
            }
        }
    }
}

/// Brings the pages of a fault into the form that the vCPU means, as far as they are DRAM: what is not has
/// no state to change. `shared_bit` is the bit that marks shared addresses, and 0 where none does.
///
/// # Errors
/// Some page is not in the form that its guest would think it in.
pub(super) fn follow(
    fault: Fault,
    shared_bit: u64,
    pages: &Pages,
    copies: &Copies,
) -> Result<(), PageExitError> {
    let Fault { at, bytes, private } = fault;
    let to = match private {
        true => Visibility::Private,
        false => Visibility::Shared,
    };
    let range = pages_of(at.raw() & !shared_bit, bytes);
    let range = range.ok_or(PageExitError::NoPages { at, bytes })?;
    copies.free(pages);
    let converted = pages.convert_all(range, to)?;
    if converted < range.pages()
        && let Some(skipped) = ASTRAY.permit()
    {
        tracing::debug!(skipped, "not all of {range}, to be {to}, is memory");
    }
    Ok(())
}

fn pages_of(at: u64, bytes: u64) -> Option<PageRange<Gpa>> {
    let end = at.checked_add(bytes)?;
    let end = end.checked_next_multiple_of(PAGE_SIZE)?;
    let start = at - at % PAGE_SIZE;
    PageRange::from_bounds(Gpa::new(start), Gpa::new(end)).ok()
}
