//! A ring that several threads may serve, one at a time.
//!
//! ```text
//!   function ──┬── registers, status ────► Line: serving? broken? interrupts      (no lock)
//!   (its lock) │                            ▲
//!              └── enable, take away ─► Virtqueue ─► [ its lock: memory held ─► Turn ] ◄── a worker
//! ```
//! Lock order: the function's, then a queue's, then the guest's pages. A worker never takes the
//! function's: what it has to say to the function goes by the [`Line`].
//!
//! A turn begins only while the function serves, and ends with its current chain once that is over. So
//! whoever ends it and then takes the ring away knows that nothing is completed afterwards. Chains that are
//! [served apart](Virtqueue::serve_apart) from the ring are counted: taking the ring away waits for them.

mod apart;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::common::NO_VECTOR;
use super::counters::QueueCounters;
use super::interrupts::Sender;
use super::memory::DeviceMemory;
use super::ring::{Ring, RingError, Turn};
use super::vhost::HandedRing;
use crate::pci::Bdf;
use crate::rate_limit::RateLimit;

pub(in crate::virtio) use apart::Look;

static BAD_RINGS: RateLimit = RateLimit::per_second(5);

/// Bits of the ISR status.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// What a function and those who serve its rings tell each other.
pub(super) struct Line {
    bdf: Bdf,
    /// Whether the driver is ready and lets the function use memory.
    serving: AtomicBool,
    /// Whether a ring was bad: only a reset helps.
    broken: AtomicBool,
    isr: AtomicU8,
    config_vector: AtomicU16,
    sender: Arc<Sender>,
}

impl Line {
    pub(super) const fn new(bdf: Bdf, sender: Arc<Sender>) -> Self {
        Self {
            bdf,
            serving: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            sender,
        }
    }

    /// Sets whether rings are served, and returns whether they were. Turns that have begun go on to the
    /// end of their chain.
    pub(super) fn serve(&self, serving: bool) -> bool {
        self.serving.swap(serving, Ordering::SeqCst)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// The ISR status, which is zero afterwards.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::SeqCst)
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(vector, Ordering::SeqCst);
    }

    /// As after reset. Rings are served no more.
    pub(super) fn reset(&self) {
        self.serve(false);
        self.broken.store(false, Ordering::SeqCst);
        self.isr.store(0, Ordering::SeqCst);
        self.set_config_vector(NO_VECTOR);
    }

    /// Tells the driver that the configuration is another.
    pub(super) fn signal_config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::SeqCst);
        self.sender.signal(self.config_vector());
    }

    /// Tells the driver that only a reset helps.
    pub(super) fn give_up(&self, error: &RingError) {
        if let Some(skipped) = BAD_RINGS.permit() {
            let function = self.bdf;
            tracing::warn!(%function, skipped, "virtio device stops until it is reset: {error}");
        }
        self.broken.store(true, Ordering::SeqCst);
        if self.serve(false) {
            self.signal_config();
        }
    }
}

/// A queue of a virtio function. Clones are handles to the same one.
pub struct Virtqueue<M>(Arc<Inner<M>>);

impl<M> Clone for Virtqueue<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<M> {
    memory: Arc<M>,
    line: Arc<Line>,
    vector: AtomicU16,
    counters: QueueCounters,
    slot: Mutex<Slot>,
    /// Told when no chain is served apart from the ring any more.
    settled: Condvar,
}

/// What the lock of a queue is for.
#[derive(Default)]
struct Slot {
    /// There once the driver has enabled it.
    ring: Option<Ring>,
    /// Chains that are served apart from the ring now.
    in_hand: usize,
}

impl<M: DeviceMemory> Virtqueue<M> {
    pub(super) fn new(memory: Arc<M>, line: Arc<Line>) -> Self {
        Self(Arc::new(Inner {
            memory,
            line,
            vector: AtomicU16::new(NO_VECTOR),
            counters: QueueCounters::default(),
            slot: Mutex::default(),
            settled: Condvar::new(),
        }))
    }

    /// Lets `serve` have a turn at the ring, interrupts the driver if it wants that, and tells it when
    /// the ring is bad. Returns `None`, without a turn, while the driver is not ready or has not let the
    /// function use memory, and when the ring is bad.
    pub fn turn<T>(
        &self,
        serve: impl FnOnce(&mut Turn<'_, M::Held<'_>>) -> Result<T, RingError>,
    ) -> Option<T> {
        let mut slot = self.slot();
        let serving = self.0.line.serving.load(Ordering::SeqCst);
        let ring = slot.ring.as_mut().filter(|_| serving)?;
        self.turn_at(ring, serve)
    }

    /// A turn at the ring of this queue, whose lock the caller has.
    fn turn_at<T>(
        &self,
        ring: &mut Ring,
        serve: impl FnOnce(&mut Turn<'_, M::Held<'_>>) -> Result<T, RingError>,
    ) -> Option<T> {
        let Inner {
            memory,
            line,
            counters,
            ..
        } = &*self.0;
        let memory = memory.hold();
        let mut turn = ring.turn(&memory, &line.serving);
        let served = serve(&mut turn);
        counters.add(turn.tally());
        if turn.wants_interrupt() {
            line.isr.fetch_or(ISR_QUEUE, Ordering::SeqCst);
            line.sender.signal(self.vector());
            counters.interrupted();
        }
        let give_up = |error: &RingError| {
            counters.failed();
            line.give_up(error);
        };
        served.inspect_err(give_up).ok()
    }

    /// The ring as somebody else can serve it, with `index` for its number. `None` while the driver is
    /// not ready, has not let the function use memory, or does not use the ring.
    pub(super) fn hand_over(&self, index: usize) -> Option<HandedRing> {
        let Inner { line, .. } = &*self.0;
        let setup = self.slot().ring.as_ref()?.setup();
        let interrupt = line.sender.event(self.vector());
        let serving = line.serving.load(Ordering::SeqCst);
        serving.then_some(HandedRing {
            index,
            setup,
            interrupt,
        })
    }

    /// What the queue has done.
    #[must_use]
    pub fn counters(&self) -> &QueueCounters {
        &self.0.counters
    }

    /// Tells the driver that only a reset helps.
    pub(super) fn fail(&self, error: &RingError) {
        self.0.line.give_up(error);
    }

    pub(super) fn vector(&self) -> u16 {
        self.0.vector.load(Ordering::SeqCst)
    }

    pub(super) fn set_vector(&self, vector: u16) {
        self.0.vector.store(vector, Ordering::SeqCst);
    }

    /// Gives the queue its ring.
    pub(super) fn enable(&self, ring: Ring) {
        self.slot().ring = Some(ring);
    }

    /// Waits for a turn that has begun, and for chains that are served apart.
    pub(super) fn settle(&self) {
        drop(self.settled());
    }

    /// As after reset, once all that has begun is over.
    pub(super) fn reset(&self) {
        self.settled().ring = None;
        self.set_vector(NO_VECTOR);
    }

    /// The lock of the queue, once no chain is served apart.
    fn settled(&self) -> MutexGuard<'_, Slot> {
        let slot = self.slot();
        let settled = self.0.settled.wait_while(slot, |slot| slot.in_hand > 0);
        settled.unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // A chain that was lost to a panic is one that never comes back: the guest's time-out.
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
