//! What makes one virtio device differ from another.

use zerocopy::{Immutable, IntoBytes};

use super::memory::DeviceMemory;
use super::virtqueue::Virtqueue;

/// A virtio device behind its transport: what it is, and how it is set up.
///
/// Methods are called one at a time, by the vCPU that the guest acts with. What a notification leads to
/// is the device's choice: to serve the ring at once ([`Virtqueue::turn`]), where that takes no time
/// and the guest waits for the answer anyway, or to wake a thread that has the ring's handle.
pub trait VirtioDevice: Send {
    /// The device-specific configuration, as the driver reads it.
    type Config: IntoBytes + Immutable;

    /// The device id of the specification, section 5: at most 0x3f.
    const ID: u16;

    /// The class code of the PCI function: base class, subclass, interface.
    const CLASS: [u8; 3];

    /// The most entries that each of its rings can have: powers of two.
    fn queues(&self) -> Vec<u16>;

    /// The features that the device offers, without those of the transport.
    fn features(&self) -> u64;

    /// Whether the device can work with `features`, which are some of those that it offers.
    fn accepts(&self, features: u64) -> bool {
        let _ = features;
        true
    }

    /// The configuration now.
    fn config(&self) -> Self::Config;

    /// Takes what the driver writes at `offset` of the configuration.
    fn write_config(&mut self, offset: usize, data: &[u8]);

    /// The driver is ready, and has accepted these of the offered features.
    fn activate(&mut self, features: u64);

    /// A ring, numbered from 0, may have something in it: after a notification that no
    /// [`Doorbell`](crate::doorbell::Doorbell) has caught, once when the driver gets ready, and when
    /// [`VirtioPci::service`](super::VirtioPci::service) is called.
    fn notified<M: DeviceMemory>(&mut self, queue: usize, ring: &Virtqueue<M>);

    /// The rings are not served any more, and may be served again later: the driver has taken back that
    /// the function may use memory, or the VM ends. What serves them without a
    /// [turn](Virtqueue::turn) has let go of them when this returns.
    fn pause(&mut self) {}

    /// Goes back to the state at power-on, but for what the specification says survives a reset. No
    /// ring is served any more.
    fn reset(&mut self);
}
