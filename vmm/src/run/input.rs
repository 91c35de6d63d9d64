//! Console input: from stdin to the guest's console, as fast as the guest takes it.
//!
//! ```text
//!            readable                 port full
//! stdin ──────────────► pending ─────────────────► wait until the guest has drained the port
//!   ▲                      │
//!   └── read on when empty ┘      (a terminal is read on in any case: Ctrl-A x must get through)
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::serial::Serial;
use event_manager::{EventOps, Events, MutEventSubscriber};
use rustix::fd::AsFd;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::escape::{Escape, Key};
use super::{EndOfRun, Ending, is_ours};

const STDIN: u32 = 0;
const DRAINED: u32 = 1;

/// How much is read at once: a buffer of a virtio console's driver, so that a guest which is sent much is
/// interrupted as seldom as it allows.
const READ_BYTES: usize = 4096;

/// How many keys wait for a guest that takes none. What is no terminal is read when nothing waits.
const MOST_PENDING: usize = READ_BYTES;

const HELP: &str = "\nCtrl-A x  end the VM\nCtrl-A h  this help\nCtrl-A Ctrl-A  send Ctrl-A\n";

/// A console of the guest, as what gives it input sees it.
pub trait InputPort: Send {
    /// Hands input to the guest; returns how many bytes of it were taken.
    fn receive(&mut self, input: &[u8]) -> usize;
}

impl InputPort for Arc<Mutex<Serial>> {
    fn receive(&mut self, input: &[u8]) -> usize {
        let mut serial = self.lock().unwrap_or_else(PoisonError::into_inner);
        serial.receive(input)
    }
}

/// What is read from stdin on the guest's behalf.
pub struct ConsoleInput {
    stdin: io::Stdin,
    source: Source,
    port: Box<dyn InputPort>,
    /// Signalled by the port when the guest has taken all that it had.
    drained: EventFd,
    pending: VecDeque<u8>,
    /// `Some` on a terminal: only there Ctrl-A is for ccvm.
    escape: Option<Escape>,
    run: Arc<EndOfRun>,
}

/// What stdin is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Told of when it is readable.
    Watched,
    /// Left alone until the guest has taken what was read.
    Paused,
    /// A file: always readable, and nothing to wait for.
    Always,
    /// At its end, or not to be read.
    Ended,
}

impl ConsoleInput {
    /// Input for `port`, which signals `drained`. The keys of a terminal include Ctrl-A x, which
    /// ends `run`; other input goes to the guest unchanged.
    #[must_use]
    pub fn new(port: Box<dyn InputPort>, drained: EventFd, run: Arc<EndOfRun>) -> Self {
        let stdin = io::stdin();
        Self {
            escape: is_ours(&stdin).then(Escape::default),
            stdin,
            source: Source::Ended,
            port,
            drained,
            pending: VecDeque::new(),
            run,
        }
    }

    /// Reads once, and passes on what the guest takes.
    fn read(&mut self, ops: &mut EventOps<'_>) {
        let mut buffer = [0; READ_BYTES];
        match rustix::io::read(self.stdin.as_fd(), &mut buffer) {
            Ok(0) => self.stop(ops),
            Ok(bytes) => self.accept(buffer.get(..bytes).unwrap_or_default()),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => {
                tracing::debug!(%error, "no more console input");
                self.stop(ops);
            }
        }
        self.deliver(ops);
    }

    fn accept(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let key = match &mut self.escape {
                Some(escape) => escape.next(*byte),
                None => Key::Guest(*byte),
            };
            match key {
                Key::Guest(byte) if self.pending.len() < MOST_PENDING => {
                    self.pending.push_back(byte);
                }
                Key::Guest(_) | Key::Nothing => {}
                Key::Quit => self.run.end(Ending::Quit),
                Key::Help => {
                    // Without a place to say it there is nobody to read it.
                    let _ = io::Write::write_all(&mut io::stderr(), HELP.as_bytes());
                }
            }
        }
    }

    /// Hands the guest what it takes, and goes on reading when it has taken everything.
    fn deliver(&mut self, ops: &mut EventOps<'_>) {
        loop {
            let taken = self.port.receive(self.pending.make_contiguous());
            self.pending.drain(..taken);
            if !self.pending.is_empty() || self.source != Source::Always {
                break;
            }
            self.read_file(ops);
        }
        match (self.source, self.pending.is_empty()) {
            (Source::Watched, false) if self.escape.is_none() => {
                let _ = ops.remove(self.stdin_events());
                self.source = Source::Paused;
            }
            (Source::Paused, true) => self.watch(ops),
            _ => {}
        }
    }

    /// Reads a piece of a file.
    fn read_file(&mut self, ops: &mut EventOps<'_>) {
        let mut buffer = [0; READ_BYTES];
        match rustix::io::read(self.stdin.as_fd(), &mut buffer) {
            Ok(bytes) if bytes > 0 => self.accept(buffer.get(..bytes).unwrap_or_default()),
            Ok(_) | Err(_) => self.stop(ops),
        }
    }

    fn watch(&mut self, ops: &mut EventOps<'_>) {
        self.source = match ops.add(self.stdin_events()) {
            Ok(()) => Source::Watched,
            // epoll knows no files, and they need no waiting.
            Err(_) => Source::Always,
        };
    }

    fn stop(&mut self, ops: &mut EventOps<'_>) {
        if self.source == Source::Watched {
            let _ = ops.remove(self.stdin_events());
        }
        self.source = Source::Ended;
    }

    fn stdin_events(&self) -> Events {
        Events::with_data(&self.stdin, STDIN, EventSet::IN)
    }
}

impl MutEventSubscriber for ConsoleInput {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            STDIN => self.read(ops),
            _ => {
                let _ = self.drained.read();
                self.deliver(ops);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let drained = Events::with_data(&self.drained, DRAINED, EventSet::IN);
        if let Err(error) = ops.add(drained) {
            tracing::error!(?error, "no console input");
            return;
        }
        self.watch(ops);
        self.deliver(ops);
    }
}
