//! Chains that are served apart from their ring, several at a time.
//!
//! ```text
//!   a worker:  [ lock: take a chain, count it ] ─► work, memory held ─► [ lock: used, count it no more ]
//!   another:              [ lock: take the next ] ─► work ...
//!   reset:     flag off, [ lock: wait until none is counted, ring taken away ]
//! ```
//! Memory is held for each of the three by itself: whoever held it while it waits for the ring would wait for
//! a conversion that waits for it. Between them a page can become private, as it can before a turn: what is
//! checked is checked again, by whoever uses it next.

use std::sync::atomic::Ordering;

use super::{Slot, Virtqueue};
use crate::virtio::memory::DeviceMemory;
use crate::virtio::ring::{Buffers, Chain};

/// What came of a look at the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::virtio) enum Look {
    /// There may be more in it.
    Again,
    /// The driver notifies when there is.
    Wait,
}

/// A chain out of the ring, counted; or why there is none.
enum Taken<'a, M: DeviceMemory> {
    Chain(Chain, InHand<'a, M>),
    None(Look),
}

impl<M: DeviceMemory> Virtqueue<M> {
    /// Takes a chain out of the ring, has `work` done with it while others may take the next, and gives it
    /// back. `work` returns how many bytes of the chain's device-writable part it has written. `more` is
    /// called before that when there are further chains. Returns `None`, with nothing done, while the driver
    /// is not ready or has not let the function use memory, and when the ring is bad.
    pub(in crate::virtio) fn serve_apart(
        &self,
        more: impl FnOnce(),
        work: impl FnOnce(Buffers<'_, M::Held<'_>>, &Chain) -> u64,
    ) -> Option<Look> {
        let (chain, in_hand) = match self.take_apart(more)? {
            Taken::Chain(chain, in_hand) => (chain, in_hand),
            Taken::None(look) => return Some(look),
        };
        let written = {
            let memory = self.0.memory.hold();
            work(Buffers::new(&memory), &chain)
        };
        let mut slot = self.slot();
        // Nobody takes the ring away while a chain is counted. It is given back also when the function has
        // stopped serving meanwhile: that is what whoever stopped it waits for.
        let ring = slot.ring.as_mut();
        let given_back =
            ring.and_then(|ring| self.turn_at(ring, |turn| turn.give_back(chain, written)));
        in_hand.end(&mut slot);
        given_back.map(|()| Look::Again)
    }

    fn take_apart(&self, more: impl FnOnce()) -> Option<Taken<'_, M>> {
        let mut slot = self.slot();
        let serving = self.0.line.serving.load(Ordering::SeqCst);
        let ring = slot.ring.as_mut().filter(|_| serving)?;
        let taken = self.turn_at(ring, |turn| {
            turn.silence()?;
            Ok(match turn.take()? {
                Some(chain) => Ok((chain, turn.has_more())),
                None if turn.listen()? => Err(Look::Again),
                None => Err(Look::Wait),
            })
        })?;
        let (chain, further) = match taken {
            Ok(taken) => taken,
            Err(look) => return Some(Taken::None(look)),
        };
        let in_hand = InHand::begin(self, &mut slot);
        drop(slot);
        if further {
            more();
        }
        Some(Taken::Chain(chain, in_hand))
    }
}

/// A chain that is counted, until this goes: also when the work with it comes to grief.
struct InHand<'a, M: DeviceMemory> {
    queue: &'a Virtqueue<M>,
    counted: bool,
}

impl<'a, M: DeviceMemory> InHand<'a, M> {
    fn begin(queue: &'a Virtqueue<M>, slot: &mut Slot) -> Self {
        slot.in_hand = slot.in_hand.saturating_add(1);
        let counted = true;
        Self { queue, counted }
    }

    fn end(mut self, slot: &mut Slot) {
        self.discount(slot);
    }

    fn discount(&mut self, slot: &mut Slot) {
        self.counted = false;
        slot.in_hand = slot.in_hand.saturating_sub(1);
        if slot.in_hand == 0 {
            self.queue.0.settled.notify_all();
        }
    }
}

impl<M: DeviceMemory> Drop for InHand<'_, M> {
    fn drop(&mut self) {
        if self.counted {
            self.discount(&mut self.queue.slot());
        }
    }
}
