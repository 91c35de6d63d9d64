//! What wakes the servers of a disk's queue.
//!
//! ```text
//!   the guest notifies ─► doorbell ─► one of the idle threads ─► a request in hand
//!                                          │ there are more
//!                                          └─► `help` ─► another idle thread ─► ...
//! ```
//! Each thread waits for both events on a list of its own and exclusively, so that one event wakes one thread.

use std::io;
use std::sync::Arc;

use devices::virtio::Virtqueue;
use devices::virtio::block::BlockQueue;
use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::image::Image;
use crate::convert::SharedMemory;

const DOORBELL: u32 = 0;
const HELP: u32 = 1;

/// Serves a queue whenever its doorbell rings, or another of its servers has more than it can do.
pub(super) struct QueueServer {
    doorbell: EventFd,
    help: EventFd,
    queue: Arc<BlockQueue<Image>>,
    ring: Virtqueue<SharedMemory>,
}

impl QueueServer {
    /// So many servers of one queue.
    pub(super) fn several(
        count: usize,
        doorbell: &EventFd,
        queue: BlockQueue<Image>,
        ring: &Virtqueue<SharedMemory>,
    ) -> io::Result<Vec<Self>> {
        let help = EventFd::new(EFD_NONBLOCK)?;
        let queue = Arc::new(queue);
        let server = |_| {
            Ok(Self {
                doorbell: doorbell.try_clone()?,
                help: help.try_clone()?,
                queue: Arc::clone(&queue),
                ring: ring.clone(),
            })
        };
        (0..count).map(server).collect()
    }
}

impl MutEventSubscriber for QueueServer {
    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        match events.data() {
            DOORBELL => {
                let times = self.doorbell.read().unwrap_or(0);
                self.ring.counters().notified(times);
            }
            // What it says is that it was written to.
            _ => drop(self.help.read()),
        }
        self.queue.serve(&self.ring, || {
            // An eventfd refuses only when its count is at the limit: then it is signalled anyway.
            let _ = self.help.write(1);
        });
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = EventSet::IN | EventSet::EXCLUSIVE;
        let doorbell = Events::with_data(&self.doorbell, DOORBELL, events);
        let help = Events::with_data(&self.help, HELP, events);
        if let Err(error) = ops.add(doorbell).and_then(|()| ops.add(help)) {
            tracing::error!(?error, "cannot wait for the notifications of a disk");
        }
    }
}
