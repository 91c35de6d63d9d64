//! Devices whose rings somebody else serves: the host's kernel (vhost), or another process of the host
//! (vhost-user).
//!
//! ```text
//!   driver is ready ──► start: features, and of each ring where it is and how it interrupts ──► host
//!   notification ─────► Doorbell ──────────────────────────────────────────────────────────────► host
//!   the driver gets ◄── events of the vectors ◄───────────────────────────────────────────────── host
//!   reset, bus master off ─► stop: the host has let go of the rings when this returns
//! ```
//! Such a host reaches guest memory by itself, without a look at what is shared: it is for VMs that
//! have no secrets from their host. What it serves, and how its configuration reads, is a [`Kind`].

mod kind;
#[cfg(test)]
mod tests;

use std::io;

use vmm_sys_util::eventfd::EventFd;

use super::device::VirtioDevice;
use super::memory::DeviceMemory;
use super::ring::{RingError, RingSetup};
use super::virtqueue::Virtqueue;
use crate::rate_limit::RateLimit;

pub use kind::{Block, FileSystem, FileSystemConfig, Kind, Net, Vsock};

static FAILURES: RateLimit = RateLimit::per_second(1);

/// A ring that is handed over.
#[derive(Debug)]
pub struct HandedRing {
    /// Its number.
    pub index: usize,
    /// Where the driver has it: within memory that devices may use.
    pub setup: RingSetup,
    /// Signalled to interrupt the driver; `None` if the driver wants no interrupts of this ring.
    pub interrupt: Option<EventFd>,
}

/// Who serves the rings.
pub trait RingHost: Send {
    /// Takes the rings over. Those that were served before are taken up where they were left, unless
    /// the driver has begun anew.
    ///
    /// # Errors
    /// When it cannot: it has then let go of all of them.
    fn start(&mut self, features: u64, rings: Vec<HandedRing>) -> io::Result<()>;

    /// Looks at a ring, because of a notification that no doorbell has caught.
    fn wake(&mut self, ring: usize);

    /// Lets go of the rings.
    fn stop(&mut self);

    /// Forgets where the rings were left.
    fn forget(&mut self);
}

/// How far the driver and the host are.
#[derive(Debug)]
enum State {
    /// The driver is not ready.
    Waiting,
    /// The driver is ready, and these are its rings so far.
    Collecting(Vec<HandedRing>),
    /// The host has the rings.
    Served,
}

/// The device.
pub struct VhostDevice<K, H> {
    kind: K,
    host: H,
    features: u64,
    state: State,
}

impl<K: Kind, H: RingHost> VhostDevice<K, H> {
    /// A device of this kind, served by `host`.
    pub const fn new(kind: K, host: H) -> Self {
        Self {
            kind,
            host,
            features: 0,
            state: State::Waiting,
        }
    }

    /// Hands over what has been collected.
    fn start<M: DeviceMemory>(&mut self, rings: Vec<HandedRing>, last: &Virtqueue<M>) {
        match self.host.start(self.features, rings) {
            Ok(()) => self.state = State::Served,
            Err(error) => {
                self.state = State::Waiting;
                if let Some(skipped) = FAILURES.permit() {
                    tracing::warn!(skipped, "the host does not serve a device: {error}");
                }
                last.fail(&RingError::Unserved);
            }
        }
    }
}

impl<K: Kind, H: RingHost> VirtioDevice for VhostDevice<K, H> {
    type Config = K::Config;

    const ID: u16 = K::ID;
    const CLASS: [u8; 3] = K::CLASS;

    fn queues(&self) -> Vec<u16> {
        self.kind.queues()
    }

    fn features(&self) -> u64 {
        self.kind.features()
    }

    fn config(&self) -> K::Config {
        self.kind.config()
    }

    /// Nothing of it is the driver's to write.
    fn write_config(&mut self, _: usize, _: &[u8]) {}

    fn activate(&mut self, features: u64) {
        self.features = features;
        self.state = State::Collecting(Vec::new());
    }

    /// The transport comes by with every ring, in order, once the driver is ready.
    fn notified<M: DeviceMemory>(&mut self, queue: usize, ring: &Virtqueue<M>) {
        let served = self.kind.served();
        match &mut self.state {
            State::Waiting => {}
            State::Served if queue < served => self.host.wake(queue),
            State::Served => {}
            State::Collecting(rings) => {
                let handed = ring.hand_over(queue).filter(|_| queue < served);
                rings.extend(handed);
                let whole = queue + 1 == self.kind.queues().len() && !rings.is_empty();
                if whole {
                    let rings = std::mem::take(rings);
                    self.start(rings, ring);
                }
            }
        }
    }

    fn pause(&mut self) {
        if matches!(self.state, State::Served) {
            self.host.stop();
            self.state = State::Collecting(Vec::new());
        }
    }

    fn reset(&mut self) {
        self.pause();
        self.host.forget();
        self.state = State::Waiting;
    }
}
