//! A queue as its function knows it: registers, doorbell, and the ring behind them.

use super::common::unused_ring;
use super::memory::DeviceMemory;
use super::ring::{Ring, RingSetup};
use super::virtqueue::Virtqueue;
use crate::doorbell::Doorbell;
use crate::rate_limit::RateLimit;

static NOT_PLACED: RateLimit = RateLimit::per_second(5);

/// A queue of a function.
pub(super) struct Queue<M> {
    /// The most entries that its ring can have.
    pub(super) most: u16,
    /// What the driver has said of the ring.
    pub(super) registers: RingSetup,
    /// Whether the driver has enabled the ring.
    pub(super) enabled: bool,
    /// The ring, and its interrupt.
    pub(super) ring: Virtqueue<M>,
    doorbell: Option<Box<dyn Doorbell>>,
    /// Where the doorbell is meant to be.
    at: Option<u64>,
}

impl<M: DeviceMemory> Queue<M> {
    pub(super) fn new(most: u16, ring: Virtqueue<M>, doorbell: Option<Box<dyn Doorbell>>) -> Self {
        Self {
            most,
            registers: unused_ring(most),
            enabled: false,
            ring,
            doorbell,
            at: None,
        }
    }

    pub(super) fn enable(&mut self, ring: Ring) {
        self.enabled = true;
        self.ring.enable(ring);
    }

    /// Whether there is one, even if it is not in its place: whoever hears it counts what it tells.
    pub(super) const fn has_doorbell(&self) -> bool {
        self.doorbell.is_some()
    }

    /// As after reset, once a turn that has begun is over.
    pub(super) fn reset(&mut self) {
        self.enabled = false;
        self.ring.reset();
        self.registers = unused_ring(self.most);
    }

    /// Has the doorbell at an address, if there is one.
    pub(super) fn place_doorbell(&mut self, at: Option<u64>) {
        let Some(doorbell) = self.doorbell.as_mut().filter(|_| self.at != at) else {
            return;
        };
        self.at = at;
        // Without it the notification is an access to the BAR like any other.
        if let Err(error) = doorbell.place(at)
            && let Some(skipped) = NOT_PLACED.permit()
        {
            tracing::warn!(
                skipped,
                "notifications of a virtio device are slow: {error}"
            );
        }
    }
}
