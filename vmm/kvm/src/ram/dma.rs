//! Guest RAM as DMA tables map it: addresses, and no way to look at what is there.

use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, Result};
use vm_memory::{
    GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestRegionCollection, GuestUsize,
    MemoryRegionAddress,
};

use super::mapping::Mapping;

/// Where the host keeps the pages that devices reach, by guest-physical address without the shared
/// bit: the shared alias of split RAM, the RAM itself when plain. A clone keeps the memory alive.
pub type DmaView = GuestRegionCollection<DmaRegion>;

/// One DRAM range. Pages that are not shared may have nothing behind them, so that it gives out
/// addresses for a DMA table and no slices.
pub struct DmaRegion {
    start: GuestAddress,
    mapping: Arc<Mapping>,
}

impl DmaRegion {
    /// The DRAM range at `start` that lies in `mapping`.
    pub(super) fn new(start: u64, mapping: Arc<Mapping>) -> Self {
        Self {
            start: GuestAddress(start),
            mapping,
        }
    }
}

impl GuestMemoryRegion for DmaRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        // No target has addresses wider than 64 bits.
        self.mapping.bytes() as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.start
    }

    fn bitmap(&self) -> BS<'_, Self::B> {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8> {
        let address = self
            .check_address(address)
            .ok_or(Error::InvalidBackendAddress)?;
        let offset = usize::try_from(address.0).map_err(|_| Error::InvalidBackendAddress)?;
        Ok(self.mapping.base().wrapping_add(offset))
    }
}

// By way of `get_slice`, which this region refuses: every access is an error.
impl GuestMemoryRegionBytes for DmaRegion {}
