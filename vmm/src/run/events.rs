//! The loop of the main thread.

use std::sync::Arc;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;

use super::{EndOfRun, Ending};

/// Waits for events until the run ends.
pub struct EventLoop {
    manager: EventManager<Box<dyn MutEventSubscriber>>,
    run: Arc<EndOfRun>,
}

/// The loop cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for events")]
pub struct EventLoopError(#[source] event_manager::Error);

impl EventLoop {
    /// A loop that ends with `run`.
    ///
    /// # Errors
    /// When the process has too many files open.
    pub fn new(run: Arc<EndOfRun>) -> Result<Self, EventLoopError> {
        let mut manager: EventManager<Box<dyn MutEventSubscriber>> =
            EventManager::new().map_err(EventLoopError)?;
        manager.add_subscriber(Box::new(Wake(Arc::clone(&run))));
        Ok(Self { manager, run })
    }

    /// Has `subscriber` told of its events.
    pub fn add(&mut self, subscriber: impl MutEventSubscriber + 'static) {
        self.manager.add_subscriber(Box::new(subscriber));
    }

    /// Handles events until the run has ended.
    pub fn until_end(&mut self) {
        while self.run.ending().is_none() {
            if let Err(error) = self.manager.run() {
                self.run
                    .end(Ending::Failed(format!("cannot wait for events: {error}")));
            }
        }
    }
}

/// Ends the wait when the run ends.
struct Wake(Arc<EndOfRun>);

impl MutEventSubscriber for Wake {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {}

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(self.0.event(), EventSet::IN)) {
            let why = format!("cannot wait for its end: {error}");
            self.0.end(Ending::Failed(why));
        }
    }
}
