//! Guest memory as an emulated device may use it.
//!
//! ```text
//!   worker: hold ─► check states ─► access, transfer ─► let go ┐
//!                                                              ▼
//!   conversion to private: ── waits for all who hold ──► tables, stage 2, backing ─► next hold
//! ```

use std::cell::Cell;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use devices::virtio::DeviceMemory;
use iommu::{Gpa, PageRange, PageState};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryBackend, Permissions};

use super::Pages;

/// The shared pages, by their shared names: what a device reaches that the guest does not trust. In a
/// plain VM that is all of memory.
#[derive(Clone)]
pub struct SharedMemory(Arc<Pages>);

impl SharedMemory {
    /// The shared ones of `pages`.
    #[must_use]
    pub fn new(pages: Arc<Pages>) -> Self {
        Self(pages)
    }
}

impl DeviceMemory for SharedMemory {
    type Held<'a> = HeldMemory<'a>;

    fn hold(&self) -> HeldMemory<'_> {
        let accesses = self.0.accesses.read();
        HeldMemory {
            pages: &self.0,
            shared: Cell::new(None),
            _accesses: accesses.unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// The shared pages, none of which becomes private meanwhile: what was checked stays so until the data
/// has moved, and nothing is copied to make it so.
pub struct HeldMemory<'a> {
    pages: &'a Pages,
    /// Pages that have been found shared, and stay so: a request's buffers are often next to each other.
    shared: Cell<Option<PageRange<Gpa>>>,
    _accesses: RwLockReadGuard<'a, ()>,
}

impl HeldMemory<'_> {
    /// Where the `bytes` bytes at the shared name `address` are in guest RAM, if all of them are shared.
    fn find(&self, address: GuestAddress, bytes: usize) -> Option<GuestAddress> {
        let at = self.pages.alias.shared_page_at(address.0)?;
        let found = GuestAddress(at.raw());
        if !self.pages.converts {
            let memory = self.pages.ram.memory();
            let there = GuestMemoryBackend::check_range(memory, found, bytes.max(1));
            return there.then_some(found);
        }
        let last = at.checked_add((bytes.max(1) as u64).checked_sub(1)?)?;
        let holds = |run: PageRange<Gpa>| run.contains(at) && run.contains(last);
        if self.shared.get().is_some_and(holds) {
            return Some(found);
        }
        let held = self.pages.held();
        match held.space.states().extent(at) {
            Some((run, PageState::Shared)) if holds(run) => {
                self.shared.set(Some(run));
                Some(found)
            }
            _ => {
                let shared = Pages::all_are(&held.space, at, bytes, PageState::Shared);
                shared.then_some(found)
            }
        }
    }
}

impl GuestMemory for HeldMemory<'_> {
    type PhysicalMemory = kvm::ram::GuestMemory;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, count: usize, _: Permissions) -> bool {
        self.find(address, count).is_some()
    }

    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        count: usize,
        _: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, ()>>> {
        let at = self.find(address, count);
        let at = at.ok_or(Error::InvalidGuestAddress(address))?;
        let memory = self.pages.ram.memory();
        Ok(GuestMemoryBackend::get_slices(memory, at, count))
    }
}
