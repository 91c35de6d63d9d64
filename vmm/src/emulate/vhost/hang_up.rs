//! Notices that a daemon is gone.
//!
//! ```text
//!   the daemon ends ─► its socket hangs up ─► HangUp ─┬─► the log says so
//!                                                     └─► the guest's device needs a reset
//! ```
//! Which of the guest's requests the daemon had in hand went with it, so nobody can answer them in its place.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, Events, MutEventSubscriber};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::epoll::EventSet;

use crate::emulate::stop::Stop;

/// Waits for the end of a connection.
pub(super) struct HangUp {
    connection: UnixStream,
    /// The daemon's socket, for people.
    daemon: String,
    function: Arc<Mutex<dyn Stop>>,
}

impl HangUp {
    /// Of the `connection` to the daemon that serves `function`.
    pub(super) fn new(
        connection: UnixStream,
        daemon: &str,
        function: Arc<Mutex<dyn Stop>>,
    ) -> Self {
        Self {
            connection,
            daemon: daemon.to_owned(),
            function,
        }
    }
}

impl MutEventSubscriber for HangUp {
    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        // It stays hung up: waiting on would be a loop.
        if let Err(error) = ops.remove(Events::empty(&self.connection)) {
            tracing::error!(?error, "cannot stop waiting for a daemon's end");
        }
        let daemon = &self.daemon;
        tracing::error!(
            "the daemon at {daemon} is gone: its device answers the guest no more until the VM is started again"
        );
        let function = self.function.lock();
        function.unwrap_or_else(PoisonError::into_inner).abandon();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Answers that are read elsewhere are no events here.
        let events = Events::new(&self.connection, EventSet::READ_HANG_UP);
        if let Err(error) = ops.add(events) {
            tracing::error!(?error, "cannot wait for a daemon's end");
        }
    }
}

/// Whether the other side of a connection has closed it.
pub(super) fn has_hung_up(connection: &UnixStream) -> bool {
    let over = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut polled = [PollFd::from_borrowed_fd(
        connection.as_fd(),
        PollFlags::RDHUP,
    )];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&now)).is_ok() && polled.iter().any(|fd| fd.revents().intersects(over))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use devices::virtio::QueueCounters;

    use super::*;
    use crate::emulate::worker::Worker;
    use crate::run::EndOfRun;

    /// Says when it is abandoned.
    struct Function(Sender<()>);

    impl Stop for Function {
        fn stop(&mut self) {}
        fn abandon(&self) {
            self.0.send(()).unwrap();
        }
        fn counters(&self) -> Vec<QueueCounters> {
            Vec::new()
        }
    }

    #[test]
    fn a_function_is_abandoned_once_when_its_daemon_is_gone_and_not_before() {
        let (daemon, connection) = UnixStream::pair().unwrap();
        let ours = connection.try_clone().unwrap();
        let (sender, abandoned) = channel();
        let watch = HangUp::new(connection, "/run/a", Arc::new(Mutex::new(Function(sender))));
        let end = Arc::new(EndOfRun::new().unwrap());
        let worker =
            Worker::start("daemons".to_owned(), &end, [Box::new(watch) as Box<_>]).unwrap();
        assert!(!has_hung_up(&ours));
        assert!(abandoned.recv_timeout(Duration::from_millis(50)).is_err());
        drop(daemon);
        abandoned.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(has_hung_up(&ours));
        assert!(abandoned.recv_timeout(Duration::from_millis(50)).is_err());
        drop(worker);
        assert_eq!(end.ending(), None);
    }
}
