//! A DRAM range and the addresses that it has in this process.

use std::sync::Arc;

use vm_memory::guest_memory::{Error, Result};
use vm_memory::{GuestAddress, GuestUsize, MemoryRegionAddress};

use super::mapping::Mapping;

/// A mapping with its place in guest-physical space: what every view of a DRAM range is made of.
pub(super) struct Placed {
    pub(super) start: GuestAddress,
    pub(super) mapping: Arc<Mapping>,
}

impl Placed {
    /// Length in bytes.
    pub(super) fn len(&self) -> GuestUsize {
        // No target has addresses wider than 64 bits.
        self.mapping.bytes() as GuestUsize
    }

    /// Where the byte at `offset` is in this process.
    pub(super) fn host_address(&self, offset: MemoryRegionAddress) -> Result<*mut u8> {
        let offset = usize::try_from(offset.0).map_err(|_| Error::InvalidBackendAddress)?;
        if offset >= self.mapping.bytes() {
            return Err(Error::InvalidBackendAddress);
        }
        Ok(self.mapping.base().wrapping_add(offset))
    }
}
