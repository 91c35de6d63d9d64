//! Guest RAM as DMA tables map it: addresses, and no way to look at what is there.

use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::Result;
use vm_memory::{
    GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionCollection, GuestUsize,
    MemoryRegionAddress,
};

use super::mapping::Mapping;
use super::placed::Placed;

/// Where the host keeps the pages that devices reach, by guest-physical address without the shared
/// bit. What is there changes with the state of a page, so that a mapping is made after the page has
/// come into its state and is gone before it leaves it. A clone keeps the memory alive.
pub type DmaView = GuestRegionCollection<DmaRegion>;

/// One DRAM range. It gives out addresses for a DMA table and no slices: a device's view of memory is
/// no way for this process to look at it.
pub struct DmaRegion(Placed);

impl DmaRegion {
    /// The DRAM range at `start` that lies in `mapping`.
    pub(super) fn new(start: u64, mapping: Arc<Mapping>) -> Self {
        Self(Placed {
            start: GuestAddress(start),
            mapping,
        })
    }
}

impl GuestMemoryRegion for DmaRegion {
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
}

// By way of `get_slice`, which this region refuses: every access is an error.
impl GuestMemoryRegionBytes for DmaRegion {}
