//! A network device (virtio 1.2, 5.1): frames between the guest and an interface of the host.
//!
//! ```text
//!   ring 2n      Receiver     ◄── Frames::receive ◄──┐
//!   ring 2n + 1  Transmitter  ──► Frames::send ──────┴─ queue n of the interface
//!   ring 2N      commands ──► NetHost::set_pairs          (if there are N > 1 pairs)
//! ```
//! The rings of frames are served by threads of the host's choice, which have a [`Receiver`] and a
//! [`Transmitter`] for each pair; commands are served by the vCPU that gives them.
//!
//! Every frame is copied once each way. A header is read from that copy, checked, and written anew for
//! the host; memory that the guest changes meanwhile is changed for nobody.

mod agreement;
mod control;
mod header;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;
mod wire;

use std::io;

use super::device::VirtioDevice;
use super::feature::{EVENT_IDX, INDIRECT_DESC};
use super::memory::DeviceMemory;
use super::virtqueue::Virtqueue;

pub use agreement::Agreement;
pub use receive::Receiver;
pub use transmit::Transmitter;
pub use wire::{Config, HEADER_BYTES, feature};

/// The longest frame, with its header: 64 KiB of payload behind an Ethernet header (virtio 1.2,
/// 5.1.6.3.1).
pub const MOST_BYTES: usize = HEADER_BYTES + 65_550;

/// Entries of each ring of frames.
const ENTRIES: u16 = 256;
/// Entries of the ring of commands.
const COMMANDS: u16 = 16;

/// The other end of one pair of rings. Frames have the header in front, [`HEADER_BYTES`] long, as
/// virtio defines it.
pub trait Frames {
    /// Takes the next frame for the guest; returns how many bytes of `frame` it fills.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; any other means that none will come any more.
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize>;

    /// Gives a frame of the guest to the host.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room for it now; any other means that this frame is refused.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
}

/// The interface as a whole.
pub trait NetHost: Send {
    /// The driver is ready, with these features. Frames may flow by the first pair.
    fn start(&mut self, features: u64);

    /// Has frames flow by the first `pairs` pairs, at least 1. Returns whether they do.
    fn set_pairs(&mut self, pairs: u16) -> bool;

    /// Has the thread of a ring of frames look at it.
    fn wake(&mut self, ring: usize);

    /// The driver is gone.
    fn stop(&mut self);
}

/// What serving the ring of buffers has come to.
#[derive(Debug)]
pub enum Received {
    /// The host has no frame. Serve the ring again when it has one.
    Idle,
    /// The guest has no buffer. Serve the ring again when the driver notifies.
    NoBuffers,
    /// There is more to do at once.
    More,
    /// The host has no frames any more.
    Gone(io::Error),
}

/// What serving the ring of frames to send has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Everything is sent. Serve the ring again when the driver notifies.
    Idle,
    /// The host has no room. Serve the ring again when it has.
    HostFull,
    /// There is more to do at once.
    More,
}

/// What the guest is told of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The device's address.
    pub mac: [u8; 6],
    /// How many pairs of rings there are, at least 1.
    pub pairs: u16,
    /// The longest payload of a frame, in bytes, if the host says.
    pub mtu: Option<u16>,
}

impl Identity {
    /// The configuration that says so. There always is a link.
    pub(super) fn config(&self) -> Config {
        Config {
            mac: self.mac,
            status: wire::LINK_UP.into(),
            max_virtqueue_pairs: self.pairs.into(),
            mtu: self.mtu.unwrap_or_default().into(),
        }
    }
}

/// The device.
pub struct VirtioNet<H> {
    identity: Identity,
    host: H,
    agreement: Agreement,
}

impl<H: NetHost> VirtioNet<H> {
    /// The device in front of `host`. Those who serve the rings of frames have `agreement` as well.
    pub const fn new(identity: Identity, host: H, agreement: Agreement) -> Self {
        Self {
            identity,
            host,
            agreement,
        }
    }

    fn has_commands(&self) -> bool {
        self.identity.pairs > 1
    }
}

impl<H: NetHost> VirtioDevice for VirtioNet<H> {
    type Config = Config;

    const ID: u16 = 1;
    /// Network controller, Ethernet.
    const CLASS: [u8; 3] = [0x02, 0x00, 0x00];

    fn queues(&self) -> Vec<u16> {
        let frames = usize::from(self.identity.pairs).saturating_mul(2);
        let mut queues = vec![ENTRIES; frames];
        queues.extend(self.has_commands().then_some(COMMANDS));
        queues
    }

    fn features(&self) -> u64 {
        let always = feature::CSUM
            | feature::GUEST_CSUM
            | feature::GUEST_TSO4
            | feature::GUEST_TSO6
            | feature::HOST_TSO4
            | feature::HOST_TSO6
            | feature::MAC
            | feature::MRG_RXBUF
            | feature::STATUS
            | EVENT_IDX
            | INDIRECT_DESC;
        let mtu = self.identity.mtu.map_or(0, |_| feature::MTU);
        let commands = match self.has_commands() {
            true => feature::CTRL_VQ | feature::MQ,
            false => 0,
        };
        always | mtu | commands
    }

    /// Features that need others come with them (virtio 1.2, 5.1.3.1), and the ring of commands comes
    /// with the pairs that it is for: without them it would be another ring.
    fn accepts(&self, features: u64) -> bool {
        let has = |all: u64| features & all == all;
        let any = |some: u64| features & some != 0;
        let guest = feature::GUEST_TSO4 | feature::GUEST_TSO6;
        let host = feature::HOST_TSO4 | feature::HOST_TSO6;
        (!any(guest) || has(feature::GUEST_CSUM))
            && (!any(host) || has(feature::CSUM))
            && has(feature::MQ) == has(feature::CTRL_VQ)
    }

    fn config(&self) -> Config {
        self.identity.config()
    }

    /// Nothing of it is the driver's to write.
    fn write_config(&mut self, _: usize, _: &[u8]) {}

    fn activate(&mut self, features: u64) {
        self.agreement.renew(features);
        self.host.start(features);
    }

    fn notified<M: DeviceMemory>(&mut self, queue: usize, ring: &Virtqueue<M>) {
        let pairs = self.identity.pairs;
        if queue < usize::from(pairs).saturating_mul(2) {
            self.host.wake(queue);
        } else {
            ring.turn(|turn| control::serve(turn, pairs, |pairs| self.host.set_pairs(pairs)));
        }
    }

    fn reset(&mut self) {
        self.agreement.renew(0);
        self.host.stop();
    }
}
