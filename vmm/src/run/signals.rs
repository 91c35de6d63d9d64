//! Signals that ask this process to end: the VM is stopped in good order.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use event_manager::{EventOps, Events, MutEventSubscriber};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};
use vmm_sys_util::epoll::EventSet;

use super::{EndOfRun, Ending};

/// Ends the run when one of them comes. Once dropped, they have their usual effect again.
pub struct Signals {
    watched: Vec<Watched>,
    run: Arc<EndOfRun>,
}

struct Watched {
    number: i32,
    arrives: UnixStream,
    handler: SigId,
}

impl Signals {
    /// Watches for `SIGTERM`, `SIGINT`, `SIGHUP` and `SIGQUIT`.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn watch(run: Arc<EndOfRun>) -> io::Result<Self> {
        let mut signals = Self {
            watched: Vec::new(),
            run,
        };
        for number in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
            let (arrives, sends) = UnixStream::pair()?;
            arrives.set_nonblocking(true)?;
            let handler = pipe::register(number, sends)?;
            signals.watched.push(Watched {
                number,
                arrives,
                handler,
            });
        }
        Ok(signals)
    }
}

impl MutEventSubscriber for Signals {
    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        let index = usize::try_from(events.data()).unwrap_or(usize::MAX);
        if let Some(watched) = self.watched.get_mut(index) {
            // What it says is that it was written to.
            let _ = watched.arrives.read(&mut [0; 16]);
            self.run.end(Ending::Signal(watched.number));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for (index, watched) in (0..).zip(&self.watched) {
            let events = Events::with_data(&watched.arrives, index, EventSet::IN);
            if let Err(error) = ops.add(events) {
                tracing::error!(signal = watched.number, ?error, "cannot watch for a signal");
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for watched in &self.watched {
            unregister(watched.handler);
        }
    }
}
