//! What a network device and its driver say to each other (virtio 1.2, 5.1).

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Feature bits of the device (virtio 1.2, 5.1.3).
pub mod feature {
    /// The driver may leave checksums to the device.
    pub const CSUM: u64 = 1 << 0;
    /// The device may leave checksums to the driver.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The device says how long a frame may be.
    pub const MTU: u64 = 1 << 3;
    /// The device has an address.
    pub const MAC: u64 = 1 << 5;
    /// The device may leave the cutting of TCP over IPv4 to the driver.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The same for IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver may leave the cutting of TCP over IPv4 to the device.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The same for IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// A frame may lie in several of the driver's buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The device says whether there is a link.
    pub const STATUS: u64 = 1 << 16;
    /// There is a ring of commands.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// There are several pairs of rings.
    pub const MQ: u64 = 1 << 22;
}

/// The link is up, in [`Config::status`].
pub(super) const LINK_UP: u16 = 1;

/// The device configuration (virtio 1.2, 5.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Config {
    /// The device's address.
    pub mac: [u8; 6],
    /// Whether there is a link.
    pub status: U16,
    /// How many pairs of rings there are.
    pub max_virtqueue_pairs: U16,
    /// The longest payload of a frame, in bytes.
    pub mtu: U16,
}

/// The header in front of each frame (virtio 1.2, 5.1.6), with the last field always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Header {
    pub(super) flags: u8,
    pub(super) gso_type: u8,
    pub(super) hdr_len: U16,
    pub(super) gso_size: U16,
    pub(super) csum_start: U16,
    pub(super) csum_offset: U16,
    pub(super) num_buffers: U16,
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// In [`Header::flags`]: the checksum is to be completed.
pub(super) const NEEDS_CSUM: u8 = 1;

/// Values of [`Header::gso_type`].
pub(super) mod gso {
    pub(in super::super) const NONE: u8 = 0;
    pub(in super::super) const TCPV4: u8 = 1;
    pub(in super::super) const TCPV6: u8 = 4;
}

/// A command to set how many pairs of rings are in use (virtio 1.2, 5.1.6.5.5).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct SetPairs {
    pub(super) class: u8,
    pub(super) command: u8,
    pub(super) pairs: U16,
}

/// [`SetPairs::class`].
pub(super) const CLASS_MQ: u8 = 4;
/// [`SetPairs::command`].
pub(super) const SET_PAIRS: u8 = 0;

/// The answer to a command.
pub(super) mod ack {
    pub(in super::super) const OK: u8 = 0;
    pub(in super::super) const ERR: u8 = 1;
}
