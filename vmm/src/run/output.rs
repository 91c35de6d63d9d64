//! Console output: collected while it is written, and written by a thread of its own, so that a slow
//! terminal holds up neither signals nor devices.
//!
//! A guest that sends faster than the terminal takes waits for it, as at the end of a slow wire.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How much output waits at most, in bytes.
const ROOM: usize = 64 << 10;

/// From so many bytes on it does not pay to wait for more.
const CHUNK: usize = 1024;

/// How long the first byte of a line waits for others.
const LINGER: Duration = Duration::from_millis(2);

struct Shared {
    state: Mutex<State>,
    /// There is something to write, or nothing will come any more.
    to_write: Condvar,
    /// There is room again, or everything has been written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    /// Nobody may be held up any more.
    hurried: bool,
    /// Nothing more will come.
    closing: bool,
    /// The writer has ended, or its sink takes nothing any more.
    done: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The console's way out.
pub struct Output {
    shared: Arc<Shared>,
}

/// The end of it that the serial port writes to.
pub struct OutputWriter {
    shared: Arc<Shared>,
}

impl Output {
    /// Starts a thread that writes to `sink`.
    ///
    /// # Errors
    /// When the thread cannot be had.
    pub fn to(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            to_write: Condvar::new(),
            written: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("console".to_owned())
            .stack_size(64 << 10)
            .spawn(move || write_all(&for_thread, sink))?;
        Ok(Self { shared })
    }

    /// What writes to it.
    #[must_use]
    pub fn writer(&self) -> OutputWriter {
        OutputWriter {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Lets no writer wait any longer; what they write from now on is kept while there is room.
    pub fn hurry(&self) {
        self.shared.state().hurried = true;
        self.shared.written.notify_all();
    }

    /// Waits until everything has been written, `patience` at most. Returns whether it has.
    #[must_use]
    pub fn finish(self, patience: Duration) -> bool {
        self.hurry();
        self.shared.state().closing = true;
        self.shared.to_write.notify_all();
        let until = Instant::now() + patience;
        let mut state = self.shared.state();
        while !state.done {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Write for OutputWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shared = &self.shared;
        let mut state = shared.state();
        while state.buffer.len() >= ROOM && !state.hurried && !state.done {
            let waited = shared.written.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.done || state.buffer.len() >= ROOM {
            // Nobody is there to read it: the guest need not know.
            return Ok(bytes.len());
        }
        let before = state.buffer.len();
        state.buffer.extend_from_slice(bytes);
        let crossed = before < CHUNK && state.buffer.len() >= CHUNK;
        if before == 0 || crossed || bytes.contains(&b'\n') {
            shared.to_write.notify_one();
        }
        Ok(bytes.len())
    }

    /// Does nothing: the serial port flushes after each byte.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread: until nothing more comes, or the sink takes nothing more.
fn write_all(shared: &Shared, mut sink: impl Write) {
    let mut writing = Vec::new();
    while take(shared, &mut writing) {
        shared.written.notify_all();
        if let Err(error) = sink.write_all(&writing).and_then(|()| sink.flush()) {
            tracing::warn!(%error, "console output is lost from here on");
            break;
        }
        writing.clear();
    }
    let mut state = shared.state();
    state.done = true;
    state.buffer = Vec::new();
    drop(state);
    shared.written.notify_all();
}

/// Waits for output and takes it; `false` when nothing more will come.
fn take(shared: &Shared, into: &mut Vec<u8>) -> bool {
    let mut state = shared.state();
    while state.buffer.is_empty() {
        if state.closing {
            return false;
        }
        let waited = shared.to_write.wait(state);
        state = waited.unwrap_or_else(PoisonError::into_inner);
    }
    if state.buffer.len() < CHUNK && !state.closing && !state.buffer.contains(&b'\n') {
        let waited = shared.to_write.wait_timeout(state, LINGER);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    std::mem::swap(&mut state.buffer, into);
    true
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Passes on what it is given, or refuses it once nobody listens.
    struct Sink(Sender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, OutputWriter, Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel();
        let output = Output::to(Sink(sender)).unwrap();
        let writer = output.writer();
        (output, writer, receiver)
    }

    #[test]
    fn nothing_is_lost_at_the_end_and_writes_are_few() {
        let (output, mut writer, receiver) = output();
        let text: Vec<u8> = (0..10_000u32).map(|n| b'a' + (n % 26) as u8).collect();
        for byte in &text {
            writer.write_all(&[*byte]).unwrap();
        }
        assert!(output.finish(SOON));
        let writes: Vec<_> = receiver.iter().collect();
        assert_eq!(writes.concat(), text);
        assert!(writes.len() < text.len() / 10, "{} writes", writes.len());
    }

    #[test]
    fn a_byte_alone_comes_out_soon() {
        let (_output, mut writer, receiver) = output();
        writer.write_all(b"$").unwrap();
        assert_eq!(receiver.recv_timeout(SOON).unwrap(), b"$");
    }

    #[test]
    fn a_guest_that_nobody_listens_to_goes_on() {
        let (output, mut writer, receiver) = output();
        drop(receiver);
        for _ in 0..3 * ROOM / 64 {
            writer.write_all(&[b'x'; 64]).unwrap();
        }
        assert!(output.finish(SOON));
    }

    #[test]
    fn a_sink_that_hangs_holds_nobody_up_once_the_run_ends() {
        struct Hangs(Receiver<()>);
        impl Write for Hangs {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_release, hold) = mpsc::channel();
        let output = Output::to(Hangs(hold)).unwrap();
        let mut writer = output.writer();
        let guest = thread::spawn(move || {
            for _ in 0..3 * ROOM / 64 {
                writer.write_all(&[b'x'; 64]).unwrap();
            }
        });
        output.hurry();
        guest.join().unwrap();
        assert!(!output.finish(Duration::from_millis(1)));
    }
}
