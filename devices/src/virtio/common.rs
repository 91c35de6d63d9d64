//! The common configuration of a virtio function (virtio 1.2, 4.1.4.3).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::ring::RingSetup;

/// What a vector register says when it names no vector.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// The registers as they lie in the BAR.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Image {
    pub(super) device_feature_select: U32,
    pub(super) device_feature: U32,
    pub(super) driver_feature_select: U32,
    pub(super) driver_feature: U32,
    pub(super) config_msix_vector: U16,
    pub(super) num_queues: U16,
    pub(super) device_status: u8,
    pub(super) config_generation: u8,
    pub(super) queue_select: U16,
    pub(super) queue_size: U16,
    pub(super) queue_msix_vector: U16,
    pub(super) queue_enable: U16,
    pub(super) queue_notify_off: U16,
    pub(super) queue_desc: U64,
    pub(super) queue_driver: U64,
    pub(super) queue_device: U64,
}

/// A register that the driver may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    DeviceFeatureSelect,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    Status,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    Descriptors(Half),
    Available(Half),
    Used(Half),
}

/// Half of a 64-bit register: drivers write each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

impl Register {
    /// The register that a write of so many bytes at this offset is for, if the driver may write it and
    /// this is how wide it is.
    pub(super) fn at(offset: usize, bytes: usize) -> Option<Self> {
        Some(match (offset, bytes) {
            (0, 4) => Self::DeviceFeatureSelect,
            (8, 4) => Self::DriverFeatureSelect,
            (12, 4) => Self::DriverFeature,
            (16, 2) => Self::ConfigVector,
            (20, 1) => Self::Status,
            (22, 2) => Self::QueueSelect,
            (24, 2) => Self::QueueSize,
            (26, 2) => Self::QueueVector,
            (28, 2) => Self::QueueEnable,
            (32, 4) => Self::Descriptors(Half::Low),
            (36, 4) => Self::Descriptors(Half::High),
            (40, 4) => Self::Available(Half::Low),
            (44, 4) => Self::Available(Half::High),
            (48, 4) => Self::Used(Half::Low),
            (52, 4) => Self::Used(Half::High),
            _ => return None,
        })
    }
}

impl Half {
    /// `whole` with this half of it replaced.
    pub(super) fn replace(self, whole: u64, half: u32) -> u64 {
        match self {
            Self::Low => whole & !u64::from(u32::MAX) | u64::from(half),
            Self::High => whole & u64::from(u32::MAX) | u64::from(half) << 32,
        }
    }
}

/// Registers that select things, and have no effect by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Selectors {
    pub(super) device_feature: u32,
    pub(super) driver_feature: u32,
    pub(super) queue: u16,
}

/// The 32 feature bits that `select` names.
pub(super) fn feature_word(features: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

/// The registers of a ring of at most `most` entries after reset.
pub(super) const fn unused_ring(most: u16) -> RingSetup {
    RingSetup {
        size: most,
        descriptors: 0,
        available: 0,
        used: 0,
    }
}
