//! The thread that answers: an event loop of its own, so that a long answer holds up neither the
//! console nor signals. It ends with the run.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::connection::{Connection, Wants};
use super::protocol::{Command, ErrorCode, Failure, Response};
use super::{ControlSocket, Controlled};
use crate::run::{EndOfRun, EventLoop, EventLoopError};

/// How many may ask at a time.
const MOST_CONNECTIONS: u32 = 16;

/// What the listener's events carry; connections count from 1.
const LISTENER: u32 = 0;
/// What the event of a device that its guest has given up carries.
const RELEASED: u32 = MOST_CONNECTIONS + 1;

/// Why nobody answers at the control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no loop.
    #[error(transparent)]
    Loop(#[from] EventLoopError),
    /// There is no thread.
    #[error("cannot start the control thread")]
    Thread(#[source] io::Error),
}

/// The thread. Dropping this waits for its end, which is the end of the run.
pub struct ControlThread {
    thread: Option<JoinHandle<()>>,
}

impl ControlThread {
    /// Answers at `socket` until the run ends.
    ///
    /// # Errors
    /// When the host has no thread for it.
    pub fn start(socket: ControlSocket, vm: Controlled) -> Result<Self, ControlError> {
        let end = Arc::clone(&vm.end);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || serve(end, socket, vm))
            .map_err(ControlError::Thread)?;
        Ok(Self {
            thread: Some(thread),
        })
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the control thread has panicked");
        }
    }
}

fn serve(end: Arc<EndOfRun>, socket: ControlSocket, vm: Controlled) {
    match EventLoop::new(end) {
        Ok(mut events) => {
            let released = vm.devices.attached().released();
            let released = released.unwrap_or_else(|error| {
                tracing::error!(%error, "devices that a guest gives up stay until somebody asks");
                None
            });
            events.add(Server {
                released,
                socket,
                vm,
                connections: BTreeMap::new(),
            });
            events.until_end();
        }
        Err(error) => tracing::error!(%error, "nobody answers at the control socket"),
    }
}

struct Server {
    socket: ControlSocket,
    vm: Controlled,
    connections: BTreeMap<u32, Slot>,
    released: Option<EventFd>,
}

/// A connection and what it is watched for.
struct Slot {
    connection: Connection,
    watched: EventSet,
}

impl Server {
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        loop {
            match self.socket.listener.accept() {
                Ok((stream, _)) => self.welcome(stream, ops),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody is left, or the one who was is gone.
                Err(_) => return,
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream, ops: &mut EventOps<'_>) {
        if let Err(error) = stream.set_nonblocking(true) {
            tracing::warn!(%error, "a control connection is not taken");
            return;
        }
        let connection = Connection::new(stream);
        let free = (1..=MOST_CONNECTIONS).find(|id| !self.connections.contains_key(id));
        let Some(id) = free else {
            let message = format!("{MOST_CONNECTIONS} connections are open");
            connection.turn_away(Failure::new(ErrorCode::TooManyConnections, message));
            return;
        };
        let watched = EventSet::IN;
        let events = Events::with_data(&connection.stream, id, watched);
        match ops.add(events) {
            Ok(()) => drop(self.connections.insert(
                id,
                Slot {
                    connection,
                    watched,
                },
            )),
            Err(error) => tracing::warn!(?error, "a control connection is not watched"),
        }
    }

    fn proceed(&mut self, id: u32, ops: &mut EventOps<'_>) {
        let Some(slot) = self.connections.get_mut(&id) else {
            return;
        };
        let vm = &mut self.vm;
        let wants = slot.connection.proceed(|line| respond(vm, line));
        let set = match wants {
            Wants::Request => EventSet::IN,
            Wants::Room => EventSet::OUT,
            Wants::Nothing => EventSet::empty(),
        };
        let events = Events::with_data(&slot.connection.stream, id, set);
        if set.is_empty() {
            let _ = ops.remove(events);
            self.connections.remove(&id);
        } else if set != slot.watched {
            match ops.modify(events) {
                Ok(()) => slot.watched = set,
                Err(error) => tracing::warn!(?error, "a control connection hangs"),
            }
        }
    }
}

fn respond(vm: &mut Controlled, line: &[u8]) -> Response {
    let command = Command::parse(line);
    command.and_then(|command| vm.answer(&command)).into()
}

impl MutEventSubscriber for Server {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            RELEASED => {
                if self
                    .released
                    .as_ref()
                    .is_some_and(|event| event.read().is_ok())
                {
                    self.vm.take_back();
                }
            }
            id => self.proceed(id, ops),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::with_data(&self.socket.listener, LISTENER, EventSet::IN);
        if let Err(error) = ops.add(events) {
            tracing::error!(?error, "nobody answers at the control socket");
        }
        let released = self.released.as_ref();
        let released = released.map(|event| Events::with_data(event, RELEASED, EventSet::IN));
        if let Some(Err(error)) = released.map(|events| ops.add(events)) {
            tracing::error!(
                ?error,
                "devices that a guest gives up stay until somebody asks"
            );
        }
    }
}
