//! Faults on their way to the guest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iommu::FaultEvent;

/// How many faults wait for a buffer of the driver: further ones are dropped.
pub const MOST_WAITING: usize = 64;

/// Faults that wait for a buffer of the driver. Clones are handles to the same queue.
#[derive(Debug, Clone, Default)]
pub struct FaultQueue(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<FaultEvent>,
    dropped: u64,
}

impl FaultQueue {
    /// Has the guest told of a fault, when the ring of events is served next: the caller sees to that by
    /// [`VirtioPci::service`](crate::virtio::VirtioPci::service). Never waits for the guest. When too many
    /// wait already this one is dropped and counted.
    pub fn report(&self, event: FaultEvent) {
        let mut waiting = self.lock();
        if waiting.events.len() < MOST_WAITING {
            waiting.events.push_back(event);
        } else {
            waiting.dropped = waiting.dropped.saturating_add(1);
        }
    }

    /// How many faults the guest was not told of, because it did not take those before them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    pub(super) fn oldest(&self) -> Option<FaultEvent> {
        self.lock().events.front().copied()
    }

    pub(super) fn forget_oldest(&self) {
        self.lock().events.pop_front();
    }

    pub(super) fn clear(&self) {
        self.lock().events.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
