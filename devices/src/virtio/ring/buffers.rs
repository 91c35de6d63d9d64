//! The data of a chain, where it lies in guest memory.

use vm_memory::{Bytes, GuestMemory, Permissions, VolatileSlice};

use super::Chain;
use crate::virtio::chain::{Span, beyond, first};

/// What moves data between chains and the device: it needs the memory, and no ring.
#[derive(Debug)]
pub struct Buffers<'a, M>(&'a M);

impl<M> Clone for Buffers<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Buffers<'_, M> {}

impl<'a, M> Buffers<'a, M> {
    /// Of chains in `memory`.
    pub(in crate::virtio) const fn new(memory: &'a M) -> Self {
        Self(memory)
    }
}

impl<M: GuestMemory> Buffers<'_, M> {
    /// Fills `data` from byte `skip` on of the device-readable part of a chain, and returns how much of it
    /// there is: at most `data.len()`. A part that is not in memory counts as not there.
    #[must_use]
    pub fn read(&self, chain: &Chain, skip: u64, data: &mut [u8]) -> usize {
        let mut filled = 0;
        for span in beyond(chain.readable(), skip) {
            let rest = data.get_mut(filled..).unwrap_or_default();
            let bytes = rest.len().min(span.bytes);
            let Some(rest) = rest.get_mut(..bytes) else {
                break;
            };
            if self.0.read_slice(rest, span.address).is_err() {
                break;
            }
            filled = filled.saturating_add(bytes);
        }
        filled
    }

    /// Whether the first `bytes` of the device-writable part of a chain are there and in memory. It may
    /// have gone when they are written.
    #[must_use]
    pub fn has_room(&self, chain: &Chain, bytes: usize) -> bool {
        let mut left = bytes;
        let in_memory = chain.writable().iter().all(|span| {
            let part = left.min(span.bytes);
            left = left.saturating_sub(part);
            let permissions = Permissions::Write;
            part == 0 || self.0.check_range(span.address, part, permissions)
        });
        in_memory && left == 0
    }

    /// Writes `data` from byte `skip` on of the device-writable part of a chain. Returns whether all of it
    /// is written; without room for it or memory behind, a part of it may have been.
    #[must_use]
    pub fn put(&self, chain: &Chain, skip: u64, data: &[u8]) -> bool {
        let mut rest = data;
        for span in beyond(chain.writable(), skip) {
            let (now, later) = rest.split_at(rest.len().min(span.bytes));
            if self.0.write_slice(now, span.address).is_err() {
                return false;
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        rest.is_empty()
    }
}

impl<'a, M: GuestMemory<Bitmap = ()>> Buffers<'a, M> {
    /// The device-readable part of a chain from byte `skip` on, as it lies in memory; `None` when a part
    /// of it does not.
    #[must_use]
    pub fn sources(&self, chain: &Chain, skip: u64) -> Option<Vec<VolatileSlice<'a>>> {
        self.slices(beyond(chain.readable(), skip), Permissions::Read)
    }

    /// The first `bytes` of the device-writable part of a chain, as they lie in memory; `None` when a part
    /// of them does not.
    #[must_use]
    pub fn sinks(&self, chain: &Chain, bytes: u64) -> Option<Vec<VolatileSlice<'a>>> {
        self.slices(first(chain.writable(), bytes), Permissions::Write)
    }

    fn slices(
        &self,
        spans: impl Iterator<Item = Span>,
        permissions: Permissions,
    ) -> Option<Vec<VolatileSlice<'a>>> {
        let memory = self.0;
        let mut slices = Vec::new();
        for span in spans.filter(|span| span.bytes > 0) {
            let parts = memory.get_slices(span.address, span.bytes, permissions);
            for part in parts.ok()? {
                slices.push(part.ok()?);
            }
        }
        Some(slices)
    }
}
