//! A disk in memory, and a driver for it.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::*;

pub(super) const SECTORS: u64 = 64;

/// The bytes of a disk.
pub(super) struct MemoryDisk {
    bytes: Mutex<Vec<u8>>,
    flushes: AtomicUsize,
    /// Whether it refuses everything.
    pub(super) broken: AtomicBool,
    /// Held by a test that wants requests to take their time.
    pub(super) slow: Mutex<()>,
}

impl MemoryDisk {
    fn new() -> Self {
        let bytes = (0..SECTORS * 512).map(|at| u8::try_from(at / 512).unwrap());
        Self {
            bytes: Mutex::new(bytes.collect()),
            flushes: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            slow: Mutex::new(()),
        }
    }

    pub(super) fn flushes(&self) -> usize {
        self.flushes.load(Ordering::SeqCst)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let _slow = self.slow.lock().unwrap();
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(act(&mut self.bytes.lock().unwrap()))
    }

    fn fill(&self, offset: u64, bytes: u64, with: u8) -> io::Result<()> {
        let (start, bytes) = (
            usize::try_from(offset).unwrap(),
            usize::try_from(bytes).unwrap(),
        );
        self.with(|disk| disk[start..start + bytes].fill(with))
    }
}

impl BlockBackend for MemoryDisk {
    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut at = usize::try_from(offset).unwrap();
        self.with(|disk| {
            for buffer in buffers {
                buffer.copy_from(&disk[at..at + buffer.len()]);
                at += buffer.len();
            }
        })
    }

    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut at = usize::try_from(offset).unwrap();
        self.with(|disk| {
            for buffer in buffers {
                buffer.copy_to(&mut disk[at..at + buffer.len()]);
                at += buffer.len();
            }
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.with(|_| ())?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.fill(offset, bytes, 0xdd)
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, _: Unmap) -> io::Result<()> {
        self.fill(offset, bytes, 0)
    }
}

/// A driver with a disk.
pub(super) struct Bed {
    pub(super) driver: Driver<VirtioBlock>,
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) queue: BlockQueue<MemoryDisk>,
    pub(super) doorbells: Vec<EventFd>,
}

impl Bed {
    /// The function is found, and no more.
    pub(super) fn new(writes: Writes, queues: usize) -> Self {
        let doorbells: Vec<EventFd> = (0..queues)
            .map(|_| EventFd::new(EFD_NONBLOCK).unwrap())
            .collect();
        let heard = doorbells.iter().map(|event| event.try_clone().unwrap());
        let geometry = Geometry {
            sectors: SECTORS,
            block_bytes: 4096,
            writes,
        };
        let device = VirtioBlock::new(geometry, heard.collect());
        let disk = Arc::new(MemoryDisk::new());
        Self {
            queue: device.queue(Arc::clone(&disk), "serial number"),
            driver: Driver::new(device, crate::virtio::DmaAccess::Platform),
            disk,
            doorbells,
        }
    }

    /// A disk of one queue whose driver has accepted these features.
    pub(super) fn ready(writes: Writes, features: u64) -> Self {
        let mut bed = Self::new(writes, 1);
        bed.driver.restart(features);
        bed
    }

    pub(super) fn ring(&self) -> Virtqueue<GuestMemoryMmap> {
        self.driver.function.rings().remove(0)
    }

    /// Has the queue served, if its doorbell has rung.
    pub(super) fn serve(&self) {
        if self.doorbells[0].read().is_ok() {
            self.queue.serve(&self.ring(), || {});
        }
    }

    pub(super) fn put_header(&self, kind: u32, sector: u64) {
        self.driver.put(HEADER, &kind.to_le_bytes());
        self.driver.put(HEADER + 8, &sector.to_le_bytes());
        self.driver.put(STATUS_AT, &[UNTOUCHED]);
    }

    /// A request with the buffers of `readable` and `writable` between header and status: address and
    /// bytes. Returns the status.
    pub(super) fn request(
        &mut self,
        kind: u32,
        sector: u64,
        readable: &[(u64, u32)],
        writable: &[(u64, u32)],
    ) -> u8 {
        self.put_header(kind, sector);
        let readable = [(HEADER, 16)].iter().chain(readable);
        let parts = readable.map(|&(at, bytes)| (at, bytes, 0));
        let writable = writable.iter().chain(&[(STATUS_AT, 1)]);
        let parts = parts.chain(writable.map(|&(at, bytes)| (at, bytes, WRITE)));
        let parts: Vec<_> = parts.collect();
        let last = parts.len() - 1;
        let descriptors =
            (1..).zip(&parts).map(
                |(next, &(at, bytes, flags))| match usize::from(next) > last {
                    true => (at, bytes, flags, 0),
                    false => (at, bytes, flags | NEXT, next),
                },
            );
        let descriptors: Vec<_> = descriptors.collect();
        self.driver.describe(0, &descriptors);
        self.driver.offer(0, 0);
        self.driver.notify(0);
        self.serve();
        self.driver.get(STATUS_AT, 1)[0]
    }

    /// Writes from one buffer.
    pub(super) fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.driver.put(DATA, data);
        let bytes = u32::try_from(data.len()).unwrap();
        self.request(OUT, sector, &[(DATA, bytes)], &[])
    }
}
