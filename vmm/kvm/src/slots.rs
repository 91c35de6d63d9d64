//! Which memory slot holds what.

use std::collections::BTreeMap;

use iommu::PageRange;

use crate::{HostMemory, Ipa};

/// What the guest may do to the memory of a slot; a store to read-only memory is an MMIO exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads, stores and instruction fetches.
    ReadWrite,
    /// Loads and instruction fetches.
    ReadOnly,
}

/// A memory slot of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub(crate) u32);

/// What a slot maps, and what it must keep alive.
pub(crate) struct Slot {
    pub(crate) range: PageRange<Ipa>,
    _memory: HostMemory,
}

/// The slots in use.
#[derive(Default)]
pub(crate) struct Slots(BTreeMap<u32, Slot>);

impl Slots {
    /// The lowest number that no slot has.
    pub(crate) fn free_id(&self) -> u32 {
        (0..)
            .find(|id| !self.0.contains_key(id))
            .unwrap_or(u32::MAX)
    }

    pub(crate) fn insert(&mut self, id: u32, range: PageRange<Ipa>, memory: HostMemory) {
        let slot = Slot {
            range,
            _memory: memory,
        };
        self.0.insert(id, slot);
    }

    pub(crate) fn range(&self, id: SlotId) -> Option<PageRange<Ipa>> {
        self.0.get(&id.0).map(|slot| slot.range)
    }

    /// Forgets the slot and lets go of its memory.
    pub(crate) fn remove(&mut self, id: SlotId) {
        self.0.remove(&id.0);
    }
}
