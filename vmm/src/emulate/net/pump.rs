//! What moves frames between a pair of rings and a queue of the tap.

use std::os::fd::AsFd;

use devices::rate_limit::RateLimit;
use devices::virtio::Virtqueue;
use devices::virtio::net::{Agreement, Received, Receiver, Sent, Transmitter};
use event_manager::{EventOps, Events, MutEventSubscriber};
use rustix::fd::AsRawFd;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::Port;
use crate::convert::SharedMemory;

static GONE: RateLimit = RateLimit::per_second(1);

const BUFFERS: u32 = 0;
const FRAMES: u32 = 1;
const TAP: u32 = 2;

/// The rings of a pair.
pub(super) struct Pair {
    /// The ring of buffers.
    pub(super) buffers: Heard,
    /// The ring of frames to send.
    pub(super) frames: Heard,
}

/// A ring, and the event that tells of its notifications.
pub(super) struct Heard {
    ring: Virtqueue<SharedMemory>,
    event: EventFd,
    /// How often the event was signalled by its own server, since it was last heard.
    own: u64,
}

impl Heard {
    pub(super) const fn new(ring: Virtqueue<SharedMemory>, event: EventFd) -> Self {
        let own = 0;
        Self { ring, event, own }
    }

    /// Comes back to the ring after others had their turn.
    fn again(&mut self) {
        // An eventfd refuses only when its count is at the limit: then it is signalled anyway.
        if self.event.write(1).is_ok() {
            self.own = self.own.saturating_add(1);
        }
    }

    /// The event is heard: what of it was the driver's is counted.
    fn hear(&mut self) {
        let times = self.event.read().unwrap_or(0);
        let own = std::mem::take(&mut self.own);
        self.ring.counters().notified(times.saturating_sub(own));
    }
}

/// Moves frames, whenever one of its events says that it can.
pub(super) struct Pump {
    pair: Pair,
    port: Port,
    receiver: Receiver,
    transmitter: Transmitter,
    /// What of the tap is waited for, and what should be.
    watched: EventSet,
    wanted: EventSet,
}

impl Pump {
    pub(super) fn new(pair: Pair, port: Port, agreement: Agreement) -> Self {
        Self {
            pair,
            port,
            receiver: Receiver::new(agreement.clone()),
            transmitter: Transmitter::new(agreement),
            watched: EventSet::empty(),
            wanted: EventSet::empty(),
        }
    }

    fn receive(&mut self) {
        let Self {
            receiver,
            port,
            pair: Pair { buffers, .. },
            ..
        } = self;
        let result = match port.is_used() {
            true => buffers.ring.turn(|turn| receiver.serve(turn, port)),
            false => None,
        };
        let waits = match result {
            Some(Received::Idle) => true,
            Some(Received::NoBuffers) | None => false,
            Some(Received::More) => {
                buffers.again();
                false
            }
            Some(Received::Gone(error)) => {
                // Also when the queue has just been taken out of use.
                if let Some(skipped) = GONE.permit().filter(|_| port.is_used()) {
                    let name = port.tap.name();
                    tracing::warn!(%name, skipped, "the host sends no more frames: {error}");
                }
                false
            }
        };
        self.wanted.set(EventSet::IN, waits);
    }

    fn transmit(&mut self) {
        let Self {
            transmitter,
            port,
            pair: Pair { frames, .. },
            ..
        } = self;
        let sent = frames.ring.turn(|turn| transmitter.serve(turn, port));
        if sent == Some(Sent::More) {
            frames.again();
        }
        self.wanted.set(EventSet::OUT, sent == Some(Sent::HostFull));
    }

    /// Has the tap watched for what is wanted, and not at all when that is nothing: it would be told of
    /// errors all the same, all the time.
    fn follow(&mut self, ops: &mut EventOps<'_>) {
        if self.watched == self.wanted {
            return;
        }
        let events = |set| Events::with_data_raw(self.port.tap.as_fd().as_raw_fd(), TAP, set);
        let changed = match (self.watched.is_empty(), self.wanted.is_empty()) {
            (true, _) => ops.add(events(self.wanted)),
            (false, true) => ops.remove(events(self.watched)),
            (false, false) => ops.modify(events(self.wanted)),
        };
        match changed {
            Ok(()) => self.watched = self.wanted,
            Err(error) => tracing::error!(?error, "cannot wait for a tap interface"),
        }
    }
}

impl MutEventSubscriber for Pump {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            BUFFERS => {
                self.pair.buffers.hear();
                self.receive();
            }
            FRAMES => {
                self.pair.frames.hear();
                self.transmit();
            }
            _ => {
                if self.wanted.contains(EventSet::IN) {
                    self.receive();
                }
                if self.wanted.contains(EventSet::OUT) {
                    self.transmit();
                }
            }
        }
        self.follow(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let buffers = Events::with_data(&self.pair.buffers.event, BUFFERS, EventSet::IN);
        let frames = Events::with_data(&self.pair.frames.event, FRAMES, EventSet::IN);
        if let Err(error) = ops.add(buffers).and_then(|()| ops.add(frames)) {
            tracing::error!(?error, "a network device is not served");
        }
    }
}
