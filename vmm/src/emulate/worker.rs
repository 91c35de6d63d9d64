//! A thread that serves an emulated device.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::run::{EndOfRun, EndOnPanic};

/// Enough for what serves a queue; image formats read tables by way of the heap.
const STACK_BYTES: usize = 512 << 10;

/// What waits for events in the thread.
pub(super) type Server = Box<dyn MutEventSubscriber + Send>;

/// A thread that waits for the events of its servers. When this goes, the thread has ended: whoever drops
/// it has seen to it that no server goes on for long.
pub(super) struct Worker {
    stop: EventFd,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread of this name, at most 15 bytes, which ends the run if it panics.
    pub(super) fn start(
        name: String,
        end: &Arc<EndOfRun>,
        servers: impl IntoIterator<Item = Server>,
    ) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let mut manager = EventManager::<Server>::new().map_err(|error| {
            let why = format!("cannot wait for events: {error}");
            io::Error::other(why)
        })?;
        manager.add_subscriber(Box::new(Wake(stop.try_clone()?)));
        for server in servers {
            manager.add_subscriber(server);
        }
        let (end, over) = (Arc::clone(end), Arc::clone(&stopped));
        let thread = thread::Builder::new()
            .name(name)
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _end_on_panic = EndOnPanic::new(end, "a thread of an emulated device");
                while !over.load(Ordering::SeqCst) {
                    if let Err(error) = manager.run() {
                        tracing::error!("an emulated device is served no more: {error}");
                        break;
                    }
                }
            })?;
        Ok(Self {
            stop,
            stopped,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Err(error) = self.stop.write(1) {
            tracing::error!("cannot end a thread of an emulated device: {error}");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of an emulated device has panicked");
        }
    }
}

/// Ends the wait for events.
struct Wake(EventFd);

impl MutEventSubscriber for Wake {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {}

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.0, EventSet::IN)) {
            tracing::error!(?error, "cannot wait for the end");
        }
    }
}
