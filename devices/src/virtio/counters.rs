//! What a queue has done, for whoever asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a queue has done so far. Counts never fall; each is as it is at some moment of the reading.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Chains that have gone back to the driver.
    pub requests: u64,
    /// Bytes that those had for the device to read, whether or not it did.
    pub bytes_from_guest: u64,
    /// Bytes that the device has written to them.
    pub bytes_to_guest: u64,
    /// Requests that were answered with an error, and rings that were bad.
    pub errors: u64,
    /// Notifications of the driver.
    pub notifications: u64,
    /// Interrupts that the driver was sent.
    pub interrupts: u64,
}

/// The counters of a queue. Clones are handles to the same ones.
#[derive(Debug, Clone, Default)]
pub struct QueueCounters(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    bytes_from_guest: AtomicU64,
    bytes_to_guest: AtomicU64,
    errors: AtomicU64,
    notifications: AtomicU64,
    interrupts: AtomicU64,
}

/// What one turn has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) bytes_from_guest: u64,
    pub(super) bytes_to_guest: u64,
}

impl QueueCounters {
    /// The counts so far.
    #[must_use]
    pub fn read(&self) -> QueueCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueCounts {
            requests: get(&self.0.requests),
            bytes_from_guest: get(&self.0.bytes_from_guest),
            bytes_to_guest: get(&self.0.bytes_to_guest),
            errors: get(&self.0.errors),
            notifications: get(&self.0.notifications),
            interrupts: get(&self.0.interrupts),
        }
    }

    /// The driver has notified so many times.
    pub fn notified(&self, times: u64) {
        self.0.notifications.fetch_add(times, Ordering::Relaxed);
    }

    /// A request was answered with an error, or the ring is bad.
    pub(super) fn failed(&self) {
        self.0.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The driver was interrupted.
    pub(super) fn interrupted(&self) {
        self.0.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    /// A turn is over.
    pub(super) fn add(&self, tally: Tally) {
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.0.requests, tally.requests);
        add(&self.0.bytes_from_guest, tally.bytes_from_guest);
        add(&self.0.bytes_to_guest, tally.bytes_to_guest);
    }
}
