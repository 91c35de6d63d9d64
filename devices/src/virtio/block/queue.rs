//! What serves one queue of a disk.

use std::io;
use std::sync::Arc;

use vm_memory::GuestMemory;
use zerocopy::IntoBytes;

use super::WriteCache;
use super::backend::{BlockBackend, Geometry};
use super::request::{Header, RawRange, Request, Status};
use crate::rate_limit::RateLimit;
use crate::virtio::memory::DeviceMemory;
use crate::virtio::ring::{Buffers, Chain};
use crate::virtio::virtqueue::{Look, Virtqueue};

static FAILURES: RateLimit = RateLimit::per_second(5);

/// Bytes of a serial number (virtio 1.2, 5.2.6).
const SERIAL: usize = 20;
const STATUS: u64 = size_of::<Status>() as u64;

/// Serves a queue of a disk: each thread that does has one request in hand.
pub struct BlockQueue<B> {
    backend: Arc<B>,
    disk: Geometry,
    serial: [u8; SERIAL],
    cache: WriteCache,
}

impl<B: BlockBackend> BlockQueue<B> {
    pub(super) fn new(backend: Arc<B>, disk: Geometry, serial: &str, cache: WriteCache) -> Self {
        let mut bytes = [0; SERIAL];
        for (byte, text) in bytes.iter_mut().zip(serial.bytes()) {
            *byte = text;
        }
        Self {
            backend,
            disk,
            serial: bytes,
            cache,
        }
    }

    /// Serves what is in the ring, and returns when there is nothing left to begin, or when the ring is not
    /// served any more. Whoever waits for a page waits for one request of each thread that serves. `more`
    /// is called when there is something for another thread as well.
    pub fn serve<M: DeviceMemory>(&self, ring: &Virtqueue<M>, more: impl Fn()) {
        let work = |buffers: Buffers<'_, M::Held<'_>>, chain: &Chain| {
            // Without a place for the status nothing is done: the guest would not learn of it.
            let answered = match chain.writable_bytes().checked_sub(STATUS) {
                Some(data) => self.answer(buffers, chain, data),
                None => Err(0),
            };
            answered.unwrap_or_else(|written| {
                ring.counters().failed();
                written
            })
        };
        while let Some(Look::Again) = ring.serve_apart(&more, work) {}
    }

    /// Does what a chain asks, whose last writable byte, behind `data` others, is for the status. Returns
    /// how many bytes from the first on have been written, as an error if that is the answer.
    fn answer<M: GuestMemory<Bitmap = ()>>(
        &self,
        buffers: Buffers<'_, M>,
        chain: &Chain,
        data: u64,
    ) -> Result<u64, u64> {
        let (status, filled) = match self.execute(buffers, chain, data) {
            Ok(filled) => (Status::Ok, filled),
            Err(status) => (status, 0),
        };
        let told = buffers.put(chain, data, &[status as u8]);
        let written = match told && filled == data {
            true => data.saturating_add(STATUS),
            false => filled,
        };
        match status {
            Status::Ok => Ok(written),
            Status::IoError | Status::Unsupported => Err(written),
        }
    }

    /// Returns how many of the `data` bytes are filled.
    fn execute<M: GuestMemory<Bitmap = ()>>(
        &self,
        buffers: Buffers<'_, M>,
        chain: &Chain,
        data: u64,
    ) -> Result<u64, Status> {
        let mut header = Header::default();
        let length = buffers.read(chain, 0, header.as_mut_bytes());
        let after = size_of::<Header>() as u64;
        let rest = chain.readable_bytes().checked_sub(after);
        let rest = rest.filter(|_| length == size_of::<Header>());
        let rest = rest.ok_or(Status::IoError)?;
        let ranges = |count| {
            let mut ranges = vec![RawRange::default(); count];
            let length = buffers.read(chain, after, ranges.as_mut_bytes());
            let whole = length == size_of_val(ranges.as_slice());
            whole.then_some(ranges).ok_or(Status::IoError)
        };
        match Request::parse(&header, rest, data, &self.disk)? {
            Request::Read(range) => {
                let sinks = buffers.sinks(chain, data).ok_or(Status::IoError)?;
                done("read", self.backend.read(range.offset, &sinks))?;
                return Ok(range.bytes);
            }
            Request::Write(range) => {
                let sources = buffers.sources(chain, after).ok_or(Status::IoError)?;
                done("write", self.backend.write(range.offset, &sources))?;
                self.write_through()?;
            }
            Request::Flush => done("flush", self.backend.flush())?,
            Request::GetId => {
                let bytes = data.min(SERIAL as u64);
                let serial = self.serial.get(..usize::try_from(bytes).unwrap_or(SERIAL));
                let told = serial.is_some_and(|serial| buffers.put(chain, 0, serial));
                return told.then_some(bytes).ok_or(Status::IoError);
            }
            Request::Discard(count) => {
                for range in ranges(count)? {
                    let range = range.discarded(&self.disk)?;
                    done("discard", self.backend.discard(range.offset, range.bytes))?;
                }
            }
            Request::WriteZeroes(count) => {
                for range in ranges(count)? {
                    let (range, unmap) = range.zeroed(&self.disk)?;
                    let zeroed = self.backend.write_zeroes(range.offset, range.bytes, unmap);
                    done("zero", zeroed)?;
                }
                self.write_through()?;
            }
        }
        Ok(0)
    }

    /// Makes a write durable, where the guest has no cache that it could flush.
    fn write_through(&self) -> Result<(), Status> {
        match self.cache.is_on() {
            true => Ok(()),
            false => done("flush", self.backend.flush()),
        }
    }
}

fn done(what: &str, result: io::Result<()>) -> Result<(), Status> {
    result.map_err(|error| {
        if let Some(skipped) = FAILURES.permit() {
            tracing::warn!(skipped, "cannot {what} a disk for its guest: {error}");
        }
        Status::IoError
    })
}
