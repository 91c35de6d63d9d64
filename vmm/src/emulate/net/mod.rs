//! A network device in front of a tap interface of the host.
//!
//! ```text
//!   guest ─► doorbell ─► Pump (a thread for each pair) ◄─► one queue of the tap
//!     └─ ready, pairs in use, reset ─► TapHost ─► offloads, queues in use
//! ```
//! A pump waits for whatever can go on: notifications of either ring, a frame on the tap if the guest
//! has buffers for it, room on the tap if a frame waits for that. It does not ask the tap for frames
//! that it could not pass on: those wait in the host's queue, and are dropped there when it is full.

mod host;
mod interface;
mod pump;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use devices::virtio::net::{Agreement, Frames, Identity, VirtioNet};
use kvm::tap::Tap;

use super::EmulateError;
use super::site::{Function, Site};
use super::worker::Worker;
use crate::config::spec::{MacAddress, NetSource, NetSpec};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::random;

use host::TapHost;
pub use interface::look_at_interface;
use interface::{diagnose, mtu, warn_if_down};
use pump::{Heard, Pair, Pump};

/// One queue of the tap, as its pump and the function share it.
#[derive(Clone)]
struct Port {
    tap: Arc<Tap>,
    /// Whether the host sends frames by it.
    used: Arc<AtomicBool>,
}

impl Port {
    /// The port of a queue that the host may use.
    fn new(tap: Tap) -> Self {
        Self {
            tap: Arc::new(tap),
            used: Arc::new(AtomicBool::new(true)),
        }
    }

    fn is_used(&self) -> bool {
        self.used.load(Ordering::SeqCst)
    }
}

impl Frames for Port {
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        self.tap.receive(frame)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.tap.send(frame)
    }
}

/// An interface whose tap is open.
pub(super) struct OpenNet {
    taps: Vec<Tap>,
    mac: MacAddress,
}

impl OpenNet {
    /// Opens the tap of `spec`, which is the one with this index in the config.
    ///
    /// # Errors
    /// When it cannot be used, with what would help.
    pub(super) fn open(spec: &NetSpec, index: usize) -> Result<Self, Diagnostic> {
        let taps = match &spec.source {
            NetSource::Tap(name) => Tap::open(name, spec.queues.get()),
            NetSource::Descriptor(number) => Tap::inherited(*number).map(|tap| vec![tap]),
        };
        let taps = taps.map_err(|error| diagnose(&error, spec, Place::Net(index, None)))?;
        for tap in taps.iter().take(1) {
            tracing::info!(tap = %tap.name(), queues = taps.len(), "network interface opened");
            warn_if_down(tap.name());
        }
        Ok(Self {
            taps,
            mac: mac(spec.mac)?,
        })
    }

    /// Makes the interface's function, and starts what serves its rings.
    pub(super) fn attach(
        self,
        site: &Site<'_>,
    ) -> Result<(Function<VirtioNet<TapHost>>, Vec<Worker>), EmulateError> {
        let name = self.taps.first().map(|tap| tap.name().clone());
        let what = name.as_ref().map(|name| format!("the interface {name}"));
        let identity = Identity {
            mac: self.mac.bytes(),
            pairs: u16::try_from(self.taps.len()).unwrap_or(u16::MAX),
            mtu: name.as_ref().and_then(mtu),
        };
        let ports: Vec<Port> = self.taps.into_iter().map(Port::new).collect();
        let doorbells = site.doorbells(2 * ports.len())?;
        let (rung, heard) = (doorbells.events()?, doorbells.events()?);
        let agreement = Agreement::default();
        let host = TapHost::new(ports.clone(), rung);
        let device = VirtioNet::new(identity, host, agreement.clone());
        let function = site.function(&what.unwrap_or_default(), device, doorbells)?;
        let mut rings = function.rings().into_iter().zip(heard);
        let mut workers = Vec::new();
        for (index, port) in ports.into_iter().enumerate() {
            let (Some(buffers), Some(frames)) = (rings.next(), rings.next()) else {
                break;
            };
            let pair = Pair {
                buffers: Heard::new(buffers.0, buffers.1),
                frames: Heard::new(frames.0, frames.1),
            };
            let pump = Pump::new(pair, port, agreement.clone());
            let name = format!("net{:02x}.{index}", site.guest.requester_id());
            let worker = Worker::start(name, site.end, [Box::new(pump) as Box<_>]);
            workers.push(worker.map_err(EmulateError::Worker)?);
        }
        Ok((Function::new(function.into()), workers))
    }
}

/// The address of an interface: the one that was asked for, or one that is made up.
///
/// # Errors
/// When the host has no random numbers.
pub(super) fn mac(asked: Option<MacAddress>) -> Result<MacAddress, Diagnostic> {
    match asked {
        Some(mac) => Ok(mac),
        None => random::bytes().map(MacAddress::local).map_err(|error| {
            let message = format!("no address for a network interface: {error}");
            Diagnostic::error(Code::EmulatedNotMade, message)
        }),
    }
}
