//! The structures of a virtio-iommu device as they lie in guest memory (virtio specification, "IOMMU
//! device"). All numbers are little-endian; ranges include their last address.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The device id of virtio.
pub const DEVICE_ID: u32 = 23;

/// Feature bits.
pub mod feature {
    /// `input_range` is valid.
    pub const INPUT_RANGE: u64 = 1 << 0;
    /// `domain_range` is valid.
    pub const DOMAIN_RANGE: u64 = 1 << 1;
    /// MAP and UNMAP are there.
    pub const MAP_UNMAP: u64 = 1 << 2;
    /// PROBE is there.
    pub const PROBE: u64 = 1 << 4;
    /// The device-memory flag of MAP is there.
    pub const MMIO: u64 = 1 << 5;
    /// `bypass` and the bypass flag of ATTACH are there.
    pub const BYPASS_CONFIG: u64 = 1 << 6;
}

/// Request types.
pub mod kind {
    /// [`Attach`](super::Attach).
    pub const ATTACH: u8 = 1;
    /// [`Detach`](super::Detach).
    pub const DETACH: u8 = 2;
    /// [`Map`](super::Map).
    pub const MAP: u8 = 3;
    /// [`Unmap`](super::Unmap).
    pub const UNMAP: u8 = 4;
    /// [`Probe`](super::Probe).
    pub const PROBE: u8 = 5;
}

/// The flag of ATTACH that makes a domain a bypass domain.
pub const ATTACH_BYPASS: u32 = 1;
/// The flag of MAP that lets endpoints read.
pub const MAP_READ: u32 = 1;
/// The flag of MAP that lets endpoints write.
pub const MAP_WRITE: u32 = 2;

/// The flag of MAP for addresses of a device's registers.
pub const MAP_MMIO: u32 = 4;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// It did what it says.
    Ok = 0,
    /// The device does not support it.
    Unsupported = 2,
    /// The host failed.
    DeviceError = 3,
    /// It makes no sense.
    Invalid = 4,
    /// A number is out of range or misaligned, or a mapping would be split.
    Range = 5,
    /// The domain or endpoint does not exist.
    NoEntry = 6,
    /// The physical address is not the guest's memory.
    Fault = 7,
    /// There is no room.
    NoMemory = 8,
}

/// The device-writable end of every request.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tail {
    /// A [`Status`].
    pub status: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl From<Status> for Tail {
    fn from(status: Status) -> Self {
        let reserved = [0; 3];
        Self {
            status: status as u8,
            reserved,
        }
    }
}

/// The device configuration.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Config {
    /// Page sizes that can be mapped; the lowest bit is the granule.
    pub page_size_mask: U64,
    /// First IOVA.
    pub input_start: U64,
    /// Last IOVA.
    pub input_end: U64,
    /// First domain.
    pub domain_start: U32,
    /// Last domain.
    pub domain_end: U32,
    /// Bytes of properties in a PROBE request.
    pub probe_size: U32,
    /// Whether endpoints without a domain are in bypass mode: 0 or 1.
    pub bypass: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Where `bypass` is in [`Config`].
pub const CONFIG_BYPASS: usize = core::mem::offset_of!(Config, bypass);

/// ATTACH, after the type and three bytes that are ignored.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Attach {
    pub domain: U32,
    pub endpoint: U32,
    pub flags: U32,
    pub reserved: U32,
}

/// DETACH, after the type and three bytes that are ignored.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Detach {
    pub domain: U32,
    pub endpoint: U32,
    pub reserved: U64,
}

/// MAP, after the type and three bytes that are ignored.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Map {
    pub domain: U32,
    pub virt_start: U64,
    pub virt_end: U64,
    pub phys_start: U64,
    pub flags: U32,
}

/// UNMAP, after the type and three bytes that are ignored.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Unmap {
    pub domain: U32,
    pub virt_start: U64,
    pub virt_end: U64,
    pub reserved: U32,
}

/// PROBE, after the type and three bytes that are ignored; the properties follow.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Probe {
    pub endpoint: U32,
    pub reserved: [u8; 64],
}

/// A property of an endpoint: a range of IOVAs that cannot be mapped.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct ReservedMemory {
    pub kind: U16,
    pub length: U16,
    pub subtype: u8,
    pub reserved: [u8; 3],
    pub start: U64,
    pub end: U64,
}

impl ReservedMemory {
    /// The type of this property.
    pub const KIND: u16 = 1;
    /// Bytes after the type and the length.
    pub const LENGTH: u16 = 20;
    /// The subtype of a range that the host keeps for itself.
    pub const RESERVED: u8 = 0;
    /// The subtype of a range where writes are interrupt messages.
    pub const MSI: u8 = 1;
}

/// An access that was refused, as the event queue reports it.
#[derive(Debug, Clone, Copy, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Fault {
    pub reason: u8,
    pub reserved: [u8; 3],
    pub flags: U32,
    pub endpoint: U32,
    pub reserved2: U32,
    pub address: U64,
}

impl Fault {
    /// Something else.
    pub const REASON_UNKNOWN: u8 = 0;
    /// The endpoint has no domain.
    pub const REASON_DOMAIN: u8 = 1;
    /// Nothing is mapped at the address, or not for this access.
    pub const REASON_MAPPING: u8 = 2;
    /// The access was a read.
    pub const READ: u32 = 1;
    /// The access was a write.
    pub const WRITE: u32 = 2;
    /// The address is known.
    pub const ADDRESS: u32 = 1 << 8;
}
