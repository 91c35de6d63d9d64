//! One who asks: a request in, a response out, one at a time.
//!
//! ```text
//!             a whole line: answered                   all of it sent
//! ( Reading ) ──────────────────────► ( Sending ) ───────────────────► ( Reading )
//!      │ end, or nonsense                  │ the other end is gone, or nothing more will come
//!      └────────────► closed ◄─────────────┘
//! ```
//! Nothing is read while a response waits to be sent, so that one who asks and does not listen costs
//! one response.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::line::{LONGEST, Lines, TooLong};
use super::protocol::{Answer, ErrorCode, Failure, Response};

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// The next request.
    Request,
    /// Room for the rest of a response.
    Room,
    /// Nothing: it is over.
    Nothing,
}

/// One who asks.
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    lines: Lines,
    unsent: Vec<u8>,
    input: Input,
}

/// What may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

impl Connection {
    /// Talks over `stream`, which does not block.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            lines: Lines::default(),
            unsent: Vec::new(),
            input: Input::Open,
        }
    }

    /// Goes on as far as it can without waiting; `answer` carries out requests.
    pub(super) fn proceed(&mut self, mut answer: impl FnMut(&[u8]) -> Response) -> Wants {
        loop {
            match self.send() {
                Ok(()) if self.unsent.is_empty() => {}
                Ok(()) => return Wants::Room,
                Err(_) => return Wants::Nothing,
            }
            match self.lines.next() {
                Ok(Some(line)) => self.put(&answer(&line)),
                Ok(None) if self.input == Input::Ended => return Wants::Nothing,
                Ok(None) => match self.receive() {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Wants::Request;
                    }
                    Err(_) => return Wants::Nothing,
                },
                Err(TooLong) => {
                    let message = format!("a request has at most {LONGEST} bytes");
                    self.refuse(Failure::new(ErrorCode::Malformed, message));
                }
            }
        }
    }

    /// Says why nothing will be answered, and closes.
    pub(super) fn turn_away(mut self, why: Failure) {
        self.refuse(why);
        // A fresh connection has room for a line; where it has not, closing says enough.
        let _ = self.send();
    }

    /// Says why nothing more will be answered; what else has come is passed over.
    fn refuse(&mut self, why: Failure) {
        self.put(&Response::new(Answer::Error(why)));
        self.lines = Lines::default();
        self.input = Input::Ended;
    }

    fn put(&mut self, response: &Response) {
        match serde_json::to_vec(response) {
            Ok(text) => self.unsent.extend_from_slice(&text),
            Err(error) => tracing::error!(%error, "a response cannot be written"),
        }
        self.unsent.push(b'\n');
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once.
    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; LONGEST];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.input = Input::Ended,
            Ok(bytes) => self.lines.extend(buffer.get(..bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
