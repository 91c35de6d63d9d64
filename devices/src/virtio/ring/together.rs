//! Several chains that go back as one.

use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::{Chain, RingError, Turn};

impl<M: GuestMemory> Turn<'_, M> {
    /// Gives several chains back at once: the driver finds all of them or none. `data` is written to
    /// their device-writable parts, one behind the other. If they have no room for all of it, or are
    /// not in memory, they go back with nothing written. Returns whether it was written.
    ///
    /// # Errors
    /// When the ring is bad.
    pub fn complete_together(
        &mut self,
        mut chains: Vec<Chain>,
        data: &[u8],
    ) -> Result<bool, RingError> {
        let (written, lengths) = self.write_across(&chains, data);
        let Some(last) = chains.pop() else {
            return Ok(written);
        };
        // Only the last of them moves the index that the driver looks at.
        let mut index = self.queue.next_used();
        for (chain, length) in chains.iter().zip(&lengths) {
            self.put_used(index, chain.head, *length)?;
            self.count(chain, *length);
            index = index.wrapping_add(1);
        }
        self.queue.set_next_used(index);
        let length = lengths.last().copied().unwrap_or_default();
        self.give_back(last, length.into())?;
        Ok(written)
    }

    /// Writes `data` across `chains`. Returns whether all of it was, and how many bytes of each.
    fn write_across(&self, chains: &[Chain], data: &[u8]) -> (bool, Vec<u32>) {
        let (mut rest, mut lengths) = (data, Vec::with_capacity(chains.len()));
        let room = chains.iter().map(Chain::writable_bytes);
        let fits = room.fold(0, u64::saturating_add) >= data.len() as u64;
        for chain in chains.iter().filter(|_| fits) {
            let room = usize::try_from(chain.writable_bytes()).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(rest.len().min(room));
            if !self.put(chain, 0, now) {
                break;
            }
            lengths.push(u32::try_from(now.len()).unwrap_or_default());
            rest = later;
        }
        if fits && lengths.len() == chains.len() {
            (true, lengths)
        } else {
            (false, vec![0; chains.len()])
        }
    }

    /// Puts a chain into the used ring, at an index that the driver does not look at yet.
    fn put_used(&self, index: u16, head: u16, written: u32) -> Result<(), RingError> {
        let entry = u64::from(index % self.queue.size());
        let at = self.queue.used_ring().saturating_add(4 + 8 * entry);
        let [a, b, c, d] = u32::from(head).to_le_bytes();
        let [e, f, g, h] = written.to_le_bytes();
        let element = [a, b, c, d, e, f, g, h];
        let put = self.memory.write_slice(&element, GuestAddress(at));
        put.map_err(|_| RingError::Memory)
    }
}
