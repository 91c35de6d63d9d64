//! One DRAM range as `vm-memory` sees it.
#![expect(unsafe_code, reason = "hands out slices of guest memory")]

use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, Result};
use vm_memory::{
    GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionCollection, GuestUsize,
    MemoryRegionAddress, VolatileSlice,
};

use super::mapping::Mapping;
use super::placed::Placed;

/// Guest RAM by guest-physical address. A clone keeps the memory alive.
pub type GuestMemory = GuestRegionCollection<RamRegion>;

/// One DRAM range, readable and writable whatever the state of its pages.
pub struct RamRegion(Placed);

impl RamRegion {
    /// The DRAM range at `start` that lies in `mapping`, all of which must be readable and writable
    /// for good.
    pub(super) fn new(start: u64, mapping: Arc<Mapping>) -> Self {
        Self(Placed {
            start: GuestAddress(start),
            mapping,
        })
    }
}

impl GuestMemoryRegion for RamRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.0.len()
    }

    fn start_addr(&self) -> GuestAddress {
        self.0.start
    }

    fn bitmap(&self) -> BS<'_, Self::B> {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8> {
        self.0.host_address(address)
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, Self::B>>> {
        let out_of_range = Error::InvalidBackendAddress;
        let start = usize::try_from(offset.0).map_err(|_| Error::InvalidBackendAddress)?;
        let end = start.checked_add(count);
        if end.is_none_or(|end| end > self.0.mapping.bytes()) {
            return Err(out_of_range);
        }
        let first = self.0.mapping.base().wrapping_add(start);
        // SAFETY: the bytes lie in the mapping (checked above), which the slice's lifetime keeps
        // alive through `self`, and which is readable and writable by `RamRegion::new`.
        Ok(unsafe { VolatileSlice::new(first, count) })
    }
}

impl GuestMemoryRegionBytes for RamRegion {}
