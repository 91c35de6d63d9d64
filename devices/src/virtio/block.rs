//! A disk as a virtio device (virtio 1.2, 5.2).
//!
//! ```text
//!   notification ─► doorbell ─► worker: BlockQueue::serve ─┬─ header, copied once ─► Request, in bounds
//!                                                          ├─ BlockBackend: read, write, flush, ...
//!                                                          └─ status, used, interrupt
//! ```
//! Data goes between the guest's buffers and the backend as it lies there. A buffer that is not in memory
//! which devices may use is an error of that request alone.

mod backend;
mod config;
mod queue;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::device::VirtioDevice;
use super::feature::{EVENT_IDX, INDIRECT_DESC};
use super::memory::DeviceMemory;
use super::virtqueue::Virtqueue;

pub use backend::{BlockBackend, Geometry, Unmap, Writes};
pub use config::Config;
pub use queue::BlockQueue;
pub use request::SECTOR;

/// Features of the device (virtio 1.2, 5.2.3).
pub mod feature {
    /// A segment has at most so many bytes.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// A request has at most so many segments.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The guest only reads.
    pub const RO: u64 = 1 << 5;
    /// The size of a block is told.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// The guest can have its writes made durable.
    pub const FLUSH: u64 = 1 << 9;
    /// The best size of a request is told.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// The guest can say that each write is to be durable at once.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// There may be several queues.
    pub const MQ: u64 = 1 << 12;
    /// The guest can say what it does not need.
    pub const DISCARD: u64 = 1 << 13;
    /// The guest can have ranges zeroed.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Entries of each ring.
pub const RING_ENTRIES: u16 = 256;

/// Whether a write is durable when it is completed, or when it is flushed: the guest's choice, which the
/// threads that serve the queues follow.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteCache(Arc<AtomicBool>);

impl WriteCache {
    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The device: what its driver sees besides the queues.
pub struct VirtioBlock {
    geometry: Geometry,
    /// Signalled to have a queue served.
    doorbells: Vec<EventFd>,
    features: u64,
    cache: WriteCache,
}

impl VirtioBlock {
    /// A disk with a queue for each of `doorbells`.
    #[must_use]
    pub fn new(geometry: Geometry, doorbells: Vec<EventFd>) -> Self {
        let cache = WriteCache::default();
        cache.set(true);
        Self {
            geometry,
            doorbells,
            features: 0,
            cache,
        }
    }

    /// What serves a queue: one for each, each in a thread of its own.
    #[must_use]
    pub fn queue<B: BlockBackend>(&self, backend: Arc<B>, serial: &str) -> BlockQueue<B> {
        BlockQueue::new(backend, self.geometry, serial, self.cache.clone())
    }
}

impl VirtioDevice for VirtioBlock {
    type Config = Config;

    const ID: u16 = 2;
    /// Mass storage, other.
    const CLASS: [u8; 3] = [0x01, 0x80, 0x00];

    fn queues(&self) -> Vec<u16> {
        vec![RING_ENTRIES; self.doorbells.len()]
    }

    fn features(&self) -> u64 {
        let several = match self.doorbells.len() {
            0 | 1 => 0,
            _ => feature::MQ,
        };
        let writing = match self.geometry.writes {
            Writes::Refused => feature::RO,
            Writes::Taken => feature::CONFIG_WCE | feature::DISCARD | feature::WRITE_ZEROES,
        };
        let limits = feature::SIZE_MAX | feature::SEG_MAX;
        let always = limits | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
        always | writing | several | INDIRECT_DESC | EVENT_IDX
    }

    fn config(&self) -> Config {
        Config::new(self.geometry, self.doorbells.len(), self.cache.is_on())
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let accepted = self.features & feature::CONFIG_WCE != 0;
        if let (Config::WRITEBACK_AT, [value @ (0 | 1)]) = (offset, data)
            && accepted
        {
            self.cache.set(*value == 1);
        }
    }

    fn activate(&mut self, features: u64) {
        self.features = features;
        // A driver that cannot flush gets durable writes (virtio 1.2, 5.2.6.2).
        let can_flush = feature::FLUSH | feature::CONFIG_WCE;
        self.cache.set(features & can_flush != 0);
    }

    fn notified<M: DeviceMemory>(&mut self, queue: usize, _: &Virtqueue<M>) {
        if let Some(doorbell) = self.doorbells.get(queue)
            && let Err(error) = doorbell.write(1)
        {
            tracing::warn!("cannot wake the thread of a disk's queue: {error}");
        }
    }

    fn reset(&mut self) {
        self.features = 0;
        self.cache.set(true);
    }
}
