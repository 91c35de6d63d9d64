//! The device configuration (virtio 1.2, 5.2.4).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::RING_ENTRIES;
use super::backend::Geometry;
use super::request::{MOST_RANGE_SECTORS, MOST_RANGES, MOST_SEGMENT_BYTES, SECTOR};

/// As the driver reads it.
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub struct Config {
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    cylinders: U16,
    heads: u8,
    sectors: u8,
    blk_size: U32,
    physical_block_exp: u8,
    alignment_offset: u8,
    min_io_size: U16,
    opt_io_size: U32,
    writeback: u8,
    unused0: u8,
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
}

impl Config {
    /// Where the driver turns the write cache on and off.
    pub(super) const WRITEBACK_AT: usize = 32;

    /// Segments of data in a request: what a ring holds besides header and status.
    const SEGMENTS: u32 = RING_ENTRIES as u32 - 2;

    pub(super) fn new(geometry: Geometry, queues: usize, write_cache: bool) -> Self {
        let Geometry {
            sectors,
            block_bytes,
            ..
        } = geometry;
        let block_sectors = block_bytes / SECTOR;
        Self {
            capacity: sectors.into(),
            size_max: MOST_SEGMENT_BYTES.into(),
            seg_max: Self::SEGMENTS.into(),
            cylinders: 0.into(),
            heads: 0,
            sectors: 0,
            // A driver must be able to read the last sector, whatever the host likes best.
            blk_size: SECTOR.into(),
            physical_block_exp: u8::try_from(block_sectors.ilog2()).unwrap_or(0),
            alignment_offset: 0,
            min_io_size: u16::try_from(block_sectors).unwrap_or(1).into(),
            opt_io_size: 0.into(),
            writeback: write_cache.into(),
            unused0: 0,
            num_queues: u16::try_from(queues).unwrap_or(u16::MAX).into(),
            max_discard_sectors: MOST_RANGE_SECTORS.into(),
            max_discard_seg: MOST_RANGES.into(),
            discard_sector_alignment: block_sectors.into(),
            max_write_zeroes_sectors: MOST_RANGE_SECTORS.into(),
            max_write_zeroes_seg: MOST_RANGES.into(),
            write_zeroes_may_unmap: 1,
            unused1: [0; 3],
        }
    }
}
