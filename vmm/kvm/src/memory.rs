//! Host memory that outlives the memory slots which name it.

use std::sync::Arc;

use vm_memory::{GuestRegionMmap, MmapRegion};

use crate::ram::{GuestRam, RamSlot};

/// Host memory with whatever keeps it mapped.
#[derive(Clone)]
pub struct HostMemory {
    address: usize,
    bytes: u64,
    _keep_alive: Arc<dyn Send + Sync>,
}

impl HostMemory {
    /// All of what `slot` names in `ram`.
    pub(crate) fn of_ram(slot: RamSlot, ram: &Arc<GuestRam>) -> Option<Self> {
        Some(Self {
            address: usize::try_from(slot.host).ok()?,
            bytes: slot.bytes,
            _keep_alive: Arc::<GuestRam>::clone(ram),
        })
    }

    /// Where the host has it.
    #[must_use]
    pub fn address(&self) -> usize {
        self.address
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl From<Arc<MmapRegion>> for HostMemory {
    fn from(region: Arc<MmapRegion>) -> Self {
        Self {
            address: region.as_ptr().expose_provenance(),
            bytes: region.size() as u64,
            _keep_alive: region,
        }
    }
}

impl From<Arc<GuestRegionMmap>> for HostMemory {
    fn from(region: Arc<GuestRegionMmap>) -> Self {
        Self {
            address: region.as_ptr().expose_provenance(),
            bytes: region.size() as u64,
            _keep_alive: region,
        }
    }
}
