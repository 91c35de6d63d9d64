//! Filling guest RAM with pages of the host before the guest runs.
//!
//! ```text
//! DRAM ranges ─► pieces ─► threads take one after another ─► MADV_POPULATE_WRITE
//!                                │
//!        caller ◄── how far ◄────┘     (now and then, in the caller's own thread)
//! ```
//!
//! The kernel clears each page, and that is what takes the time: one processor clears a few GiB in a
//! second. Several threads share the work, and no page is touched by this process itself.

use std::io;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use hostcall::gate;

use super::GuestRam;
use super::mapping::Mapping;

/// What a thread fills at a time: enough that the call costs nothing beside its work, and few enough
/// that threads end together. A huge page of 1 GiB is filled as a whole.
const PIECE: usize = 128 << 20;
/// How often the caller hears of the progress.
const BEAT: Duration = Duration::from_millis(100);

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Populated {
    /// Bytes that are filled.
    pub done: u64,
    /// Bytes of guest RAM.
    pub all: u64,
}

/// Guest RAM could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum PopulateError {
    /// The kernel gives no pages.
    #[error("the host has no pages for all of guest memory: MADV_POPULATE_WRITE failed")]
    Pages(#[source] io::Error),
    /// The kernel cannot do it: it came with Linux 5.14.
    #[error("this kernel cannot fill memory in advance: MADV_POPULATE_WRITE is not known to it")]
    Unknown(#[source] io::Error),
    /// The process can have no more threads.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A part of a mapping that is filled by one call.
struct Piece<'r> {
    mapping: &'r Mapping,
    offset: usize,
    bytes: usize,
}

impl GuestRam {
    /// Fills all of RAM with pages of the host, by `threads` threads, and tells `progress` now and then
    /// how far it is. Memory keeps its content. To be called before pages are converted.
    ///
    /// # Errors
    /// When the host has too few pages, or cannot do it at all. Some pages may be there then.
    pub fn populate(
        &self,
        threads: NonZero<usize>,
        progress: &mut dyn FnMut(Populated),
    ) -> Result<(), PopulateError> {
        let mut pieces = self.pieces();
        let all = pieces.iter().map(|piece| piece.bytes as u64).sum();
        let threads = threads.get().min(pieces.len());
        // They are taken from the end.
        pieces.reverse();
        let pieces = Mutex::new(pieces);
        let (filled, hears) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..threads {
                let (filled, pieces) = (filled.clone(), &pieces);
                let thread = thread::Builder::new().name("prefault".to_owned());
                let started = thread.spawn_scoped(scope, move || fill(pieces, &filled));
                started.map_err(|error| stop(pieces, PopulateError::Thread(error)))?;
            }
            drop(filled);
            let mut done = 0;
            progress(Populated { done, all });
            loop {
                match hears.recv_timeout(BEAT) {
                    Ok(Ok(bytes)) => done += bytes,
                    Ok(Err(error)) => return Err(stop(&pieces, told(error))),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                progress(Populated { done, all });
            }
        })
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        let step = PIECE.max(self.pages.alignment());
        let mut pieces = Vec::new();
        for dram in &self.low {
            let mapping = &*dram.mapping;
            let offsets = (0..mapping.bytes()).step_by(step);
            pieces.extend(offsets.map(|offset| Piece {
                mapping,
                offset,
                bytes: step.min(mapping.bytes() - offset),
            }));
        }
        pieces
    }
}

/// Fills pieces until there is none, or nobody hears of it any more.
fn fill(pieces: &Mutex<Vec<Piece<'_>>>, filled: &mpsc::Sender<io::Result<u64>>) {
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).pop();
    while let Some(piece) = next() {
        let outcome = gate("madvise")
            .and_then(|()| piece.mapping.populate(piece.offset, piece.bytes))
            .map(|()| piece.bytes as u64);
        let failed = outcome.is_err();
        if filled.send(outcome).is_err() || failed {
            return;
        }
    }
}

/// Leaves the threads nothing to do.
fn stop(pieces: &Mutex<Vec<Piece<'_>>>, error: PopulateError) -> PopulateError {
    let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
    pieces.clear();
    error
}

fn told(error: io::Error) -> PopulateError {
    match error.kind() {
        io::ErrorKind::InvalidInput => PopulateError::Unknown(error),
        _ => PopulateError::Pages(error),
    }
}
