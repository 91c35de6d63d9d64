//! The guest's IOMMU as a virtio device (virtio 1.2, 5.13). It is thin: what a request means is
//! `iommu::viommu`'s business, and what becomes of it that of the [`IommuBackend`].
//!
//! ```text
//!   queue 0   chain ─► bytes, copied once ─► Request ─► IommuBackend ─► status
//!                │                              │           └─► properties of PROBE
//!                └─ no room for a status        └─ not a request: the chain goes back unwritten
//!   queue 1   FaultQueue::report ─► backlog ─► a buffer of the driver, when there is one
//! ```

mod faults;

use iommu::request::{EndpointId, Malformed, Request};
use iommu::viommu::{PROBE_SIZE, Viommu};
use iommu::wire::{self, Status, Tail, feature};
use vm_memory::GuestMemory;
use zerocopy::IntoBytes;

pub use faults::{FaultQueue, MOST_WAITING};

use super::device::VirtioDevice;
use super::memory::DeviceMemory;
use super::ring::{Chain, RingError, Turn};
use super::virtqueue::Virtqueue;

/// The ring of requests.
pub const REQUESTS: usize = 0;
/// The ring of fault reports.
pub const EVENTS: usize = 1;

/// Bytes of properties in an answer to PROBE.
const PROPERTIES: usize = PROBE_SIZE as usize;
const TAIL: usize = size_of::<Tail>();

/// What does as the guest asks.
///
/// Called by the vCPU that made the request, with the virtio function locked: it must not touch that
/// function, and nothing that it waits for may wait for that function.
pub trait IommuBackend: Send {
    /// The device configuration.
    fn config(&self) -> wire::Config;
    /// The properties of an endpoint, at most [`PROBE_SIZE`] bytes; `None` if there is no such endpoint.
    fn probe(&self, endpoint: EndpointId) -> Option<Vec<u8>>;
    /// Does what a request asks, wholly or not at all.
    fn apply(&mut self, request: Request) -> Status;
    /// Sets whether endpoints without a domain are in bypass mode.
    fn set_bypass(&mut self, bypass: bool);
    /// Takes every endpoint out of its domain. Bypass mode stays as it is.
    fn reset(&mut self);
}

/// The device.
pub struct VirtioIommu<B> {
    backend: B,
    faults: FaultQueue,
    features: u64,
}

impl<B: IommuBackend> VirtioIommu<B> {
    /// The device in front of `backend`. What is reported to `faults` goes to the guest.
    pub const fn new(backend: B, faults: FaultQueue) -> Self {
        Self {
            backend,
            faults,
            features: 0,
        }
    }

    fn serve_requests<M: GuestMemory>(&mut self, turn: &mut Turn<'_, M>) -> Result<(), RingError> {
        while let Some(chain) = turn.take()? {
            let mut bytes = [0; Request::LONGEST];
            let length = turn.read(&chain, 0, &mut bytes);
            let bytes = bytes.get(..length).unwrap_or_default();
            // Without a place for the status nothing is done: the guest would not learn of it.
            let answer = match turn.has_room(&chain, TAIL) {
                true => self.answer(bytes, room(&chain)),
                false => Vec::new(),
            };
            turn.complete(chain, &answer)?;
        }
        Ok(())
    }

    /// What to write into the `room` bytes that a request leaves for the answer, which hold a status at
    /// least; nothing when the request cannot be answered.
    fn answer(&mut self, request: &[u8], room: usize) -> Vec<u8> {
        match Request::parse(request, self.features) {
            Ok(Request::Probe { endpoint }) => self.probe(endpoint, room.saturating_sub(TAIL)),
            Ok(request) => Tail::from(self.backend.apply(request)).as_bytes().to_vec(),
            Err(Malformed::Answer(status)) => Tail::from(status).as_bytes().to_vec(),
            Err(Malformed::Unrecognised) => Vec::new(),
        }
    }

    /// The properties of an endpoint and the status behind them. If they do not fit, only the status,
    /// where the driver expects it: at the end.
    fn probe(&self, endpoint: EndpointId, room: usize) -> Vec<u8> {
        let (mut properties, status) = match self.backend.probe(endpoint) {
            _ if room < PROPERTIES => (Vec::new(), Status::Invalid),
            Some(properties) => (properties, Status::Ok),
            None => (Vec::new(), Status::NoEntry),
        };
        properties.resize(room.min(PROPERTIES), 0);
        properties.extend_from_slice(Tail::from(status).as_bytes());
        properties
    }

    fn serve_events<M: GuestMemory>(&self, turn: &mut Turn<'_, M>) -> Result<(), RingError> {
        while let Some(fault) = self.faults.oldest() {
            let Some(chain) = turn.take()? else { break };
            if fits(&chain) {
                self.faults.forget_oldest();
                turn.complete(chain, wire::Fault::from(fault).as_bytes())?;
            } else {
                // Too small for a report: it goes back empty.
                turn.complete(chain, &[])?;
            }
        }
        Ok(())
    }
}

/// How many bytes a buffer has for an answer.
fn room(chain: &Chain) -> usize {
    usize::try_from(chain.writable_bytes()).unwrap_or(usize::MAX)
}

/// Whether a report fits into a buffer.
fn fits(chain: &Chain) -> bool {
    room(chain) >= size_of::<wire::Fault>()
}

impl<B: IommuBackend> VirtioDevice for VirtioIommu<B> {
    type Config = wire::Config;

    const ID: u16 = 23;
    /// Base system peripheral, IOMMU.
    const CLASS: [u8; 3] = [0x08, 0x06, 0x00];

    fn queues(&self) -> Vec<u16> {
        vec![256, 64]
    }

    fn features(&self) -> u64 {
        Viommu::features()
    }

    fn config(&self) -> wire::Config {
        self.backend.config()
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let accepted = self.features & feature::BYPASS_CONFIG != 0;
        if let (wire::CONFIG_BYPASS, [value @ (0 | 1)]) = (offset, data)
            && accepted
        {
            self.backend.set_bypass(*value == 1);
        }
    }

    fn activate(&mut self, features: u64) {
        self.features = features;
    }

    fn notified<M: DeviceMemory>(&mut self, queue: usize, ring: &Virtqueue<M>) {
        ring.turn(|turn| match queue {
            REQUESTS => self.serve_requests(turn),
            _ => self.serve_events(turn),
        });
    }

    fn reset(&mut self) {
        self.features = 0;
        self.faults.clear();
        self.backend.reset();
    }
}

#[cfg(test)]
mod tests;
