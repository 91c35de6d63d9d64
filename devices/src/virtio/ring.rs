//! A split ring, and one turn at it.
//!
//! Everything in guest memory is what the guest alleges, and it can change at any moment: a chain's
//! descriptors are copied once, checked, and then used. What is wrong with one chain is that chain's
//! end: it goes back with nothing written. What is wrong with the ring itself ends the ring.
//!
//! ```text
//!   notification ─► Turn ─┬─► take: Chain ─► complete ─┬─► ... at most as many as the ring has entries
//!                         └─► a bad ring: RingError    └─► used, unless the ring is bad
//! ```

mod buffers;
mod together;

use std::sync::atomic::{AtomicBool, Ordering, fence};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

pub use super::chain::Chain;
use super::counters::Tally;
pub use buffers::Buffers;

/// The driver wants no interrupts (virtio 1.2, 2.7.7), in the flags of the available ring.
const NO_INTERRUPT: u16 = 1;

/// Where the driver says a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSetup {
    /// Entries: a power of two.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
}

/// How the two sides tell each other which notifications they want (virtio 1.2, 2.7.7 and 2.7.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppression {
    /// All or none, by a flag.
    Flags,
    /// From an index on: the driver has accepted `EVENT_IDX`.
    EventIndex,
}

/// Why a ring cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No such ring is possible.
    #[error("a ring of {0} entries")]
    Size(u16),
    /// A part is misaligned, or not in memory that the device may use.
    #[error("the {part} at {address:#x} is misaligned or not in memory that devices may use")]
    Place {
        /// Which part.
        part: &'static str,
        /// Where it was said to be.
        address: u64,
    },
    /// More chains were made available than there are entries.
    #[error("the available index runs ahead of the ring")]
    Index,
    /// A chain begins at no descriptor.
    #[error("a chain begins at descriptor {0}, which the ring does not have")]
    Head(u16),
    /// What serves the rings of the device does not take them.
    #[error("the host does not serve it")]
    Unserved,
    /// The ring's memory is gone.
    #[error("the ring's memory cannot be accessed")]
    Memory,
}

/// A ring that the driver has enabled.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    suppression: Suppression,
    /// The index of the used ring when the driver's wish for interrupts was last looked at.
    looked: u16,
}

impl Ring {
    /// The ring at `setup`, of at most `most` entries.
    ///
    /// # Errors
    /// When it is not a ring.
    pub fn new<M: GuestMemory>(
        setup: &RingSetup,
        most: u16,
        suppression: Suppression,
        memory: &M,
    ) -> Result<Self, RingError> {
        let size = setup.size;
        if !size.is_power_of_two() || size > most {
            return Err(RingError::Size(size));
        }
        let mut queue = Queue::new(most).map_err(|_| RingError::Size(most))?;
        queue.set_size(size);
        let halves = |address: u64| {
            let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
            let half = |bytes| Some(u32::from_le_bytes(bytes));
            (half([a, b, c, d]), half([e, f, g, h]))
        };
        check_parts(setup, memory)?;
        let (low, high) = halves(setup.descriptors);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(setup.available);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(setup.used);
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(suppression == Suppression::EventIndex);
        queue.set_ready(true);
        Ok(Self {
            queue,
            suppression,
            looked: 0,
        })
    }

    /// Where it is.
    pub(super) fn setup(&self) -> RingSetup {
        RingSetup {
            size: self.queue.size(),
            descriptors: self.queue.desc_table(),
            available: self.queue.avail_ring(),
            used: self.queue.used_ring(),
        }
    }

    /// One turn at the ring, which ends early once `serving` is false.
    pub fn turn<'a, M: GuestMemory>(
        &'a mut self,
        memory: &'a M,
        serving: &'a AtomicBool,
    ) -> Turn<'a, M> {
        let left = self.queue.size();
        Turn {
            queue: &mut self.queue,
            suppression: self.suppression,
            looked: &mut self.looked,
            memory,
            serving,
            left,
            tally: Tally::default(),
        }
    }
}

/// Whether each part is aligned and in memory. A ring at address 0 is one that nobody has set up.
fn check_parts<M: GuestMemory>(setup: &RingSetup, memory: &M) -> Result<(), RingError> {
    let entries = usize::from(setup.size);
    let parts = [
        ("descriptor table", setup.descriptors, 16, 16 * entries),
        ("available ring", setup.available, 2, 6 + 2 * entries),
        ("used ring", setup.used, 4, 6 + 8 * entries),
    ];
    for (part, address, alignment, bytes) in parts {
        let permissions = match part {
            "used ring" => Permissions::Write,
            _ => Permissions::Read,
        };
        let end = address.checked_add(bytes as u64);
        if address == 0
            || address % alignment != 0
            || end.is_none()
            || !memory.check_range(GuestAddress(address), bytes, permissions)
        {
            return Err(RingError::Place { part, address });
        }
    }
    Ok(())
}

/// A device's turn at a ring: it takes at most as many chains as the ring has entries, so that a guest
/// that adds chains all the time does not keep it here. Each of those comes with a notification of its own.
pub struct Turn<'a, M> {
    queue: &'a mut Queue,
    suppression: Suppression,
    looked: &'a mut u16,
    memory: &'a M,
    serving: &'a AtomicBool,
    left: u16,
    tally: Tally,
}

impl<'a, M: GuestMemory> Turn<'a, M> {
    /// The next chain that the driver has made available. It must be completed before the one after it
    /// is taken.
    ///
    /// # Errors
    /// When the ring is bad.
    pub fn take(&mut self) -> Result<Option<Chain>, RingError> {
        let left = self.left.checked_sub(1);
        let Some(left) = left.filter(|_| self.serving.load(Ordering::SeqCst)) else {
            return Ok(None);
        };
        let size = self.queue.size();
        let mut available = self.queue.iter(self.memory).map_err(|error| match error {
            virtio_queue::Error::InvalidAvailRingIndex => RingError::Index,
            _ => RingError::Memory,
        })?;
        let Some(chain) = available.next() else {
            return Ok(None);
        };
        self.left = left;
        let head = chain.head_index();
        if head >= size {
            return Err(RingError::Head(head));
        }
        Ok(Some(Chain::new(head, chain, size)))
    }

    /// The data of chains.
    #[must_use]
    pub const fn buffers(&self) -> Buffers<'a, M> {
        Buffers::new(self.memory)
    }

    /// As [`Buffers::read`].
    #[must_use]
    pub fn read(&self, chain: &Chain, skip: u64, data: &mut [u8]) -> usize {
        self.buffers().read(chain, skip, data)
    }

    /// As [`Buffers::has_room`].
    #[must_use]
    pub fn has_room(&self, chain: &Chain, bytes: usize) -> bool {
        self.buffers().has_room(chain, bytes)
    }

    /// As [`Buffers::put`].
    #[must_use]
    pub fn put(&self, chain: &Chain, skip: u64, data: &[u8]) -> bool {
        self.buffers().put(chain, skip, data)
    }

    /// Writes `data` to the beginning of the device-writable part of a chain and gives the chain back.
    /// If it has no room for all of it, or is not in memory, it goes back with nothing written.
    ///
    /// # Errors
    /// When the ring is bad.
    pub fn complete(&mut self, chain: Chain, data: &[u8]) -> Result<(), RingError> {
        let bytes = data.len() as u64;
        let written = chain.writable_bytes() >= bytes && self.put(&chain, 0, data);
        self.give_back(chain, if written { bytes } else { 0 })
    }

    /// Gives a chain back, of which the first `written` bytes of the device-writable part are written.
    ///
    /// # Errors
    /// When the ring is bad.
    #[expect(clippy::needless_pass_by_value, reason = "a chain goes back once")]
    pub fn give_back(&mut self, chain: Chain, written: u64) -> Result<(), RingError> {
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        let used = self.queue.add_used(self.memory, chain.head, written);
        used.map_err(|_| RingError::Memory)?;
        self.count(&chain, written);
        Ok(())
    }

    /// Counts a chain that has gone back.
    fn count(&mut self, chain: &Chain, written: u32) {
        let tally = &mut self.tally;
        let add = |count: &mut u64, more| *count = count.saturating_add(more);
        add(&mut tally.requests, 1);
        add(&mut tally.bytes_from_guest, chain.readable_bytes());
        add(&mut tally.bytes_to_guest, written.into());
    }

    /// What has been done so far.
    pub(super) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the driver is to be interrupted: chains have gone back, and it has not said that it does
    /// not care.
    #[must_use]
    pub fn wants_interrupt(&mut self) -> bool {
        if self.tally.requests == 0 {
            return false;
        }
        // What was given back is seen before the driver's wish is read.
        fence(Ordering::SeqCst);
        let available = self.queue.avail_ring();
        let wish = |at: u64| {
            let word = self.memory.load::<u16>(GuestAddress(at), Ordering::Acquire);
            word.ok().map(u16::from_le)
        };
        let now = self.queue.next_used();
        let before = std::mem::replace(self.looked, now);
        match self.suppression {
            Suppression::Flags => wish(available).is_some_and(|flags| flags & NO_INTERRUPT == 0),
            Suppression::EventIndex => {
                let entries = 2 * u64::from(self.queue.size());
                let event = wish(available.saturating_add(4).saturating_add(entries));
                event.is_some_and(|event| passed(event, before, now))
            }
        }
    }

    /// Asks the driver not to notify: the device looks at the ring by itself.
    ///
    /// # Errors
    /// When the ring is bad.
    pub fn silence(&mut self) -> Result<(), RingError> {
        let silenced = self.queue.disable_notification(self.memory);
        silenced.map_err(|_| RingError::Memory)
    }

    /// Asks the driver to notify from now on. Returns whether it has made chains available before it
    /// could know: for those no notification comes.
    ///
    /// # Errors
    /// When the ring is bad.
    pub fn listen(&mut self) -> Result<bool, RingError> {
        let more = self.queue.enable_notification(self.memory);
        more.map_err(|_| RingError::Memory)
    }

    /// Whether the driver has made more chains available.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let available = self.queue.avail_idx(self.memory, Ordering::Acquire);
        available.is_ok_and(|available| available.0 != self.queue.next_avail())
    }

    /// How many entries the ring has.
    #[must_use]
    pub fn entries(&self) -> u16 {
        self.queue.size()
    }

    /// The memory that chains are in.
    #[must_use]
    pub const fn memory(&self) -> &M {
        self.memory
    }
}

/// Whether an index that went from `before` to `now` has passed `event` (virtio 1.2, 2.7.10.1).
const fn passed(event: u16, before: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}
