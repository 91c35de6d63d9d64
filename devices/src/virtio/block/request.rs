//! What a request of a disk's driver alleges, and what of it holds (virtio 1.2, 5.2.6).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::backend::{Geometry, Unmap, Writes};

/// Bytes of a sector: the unit of addresses, whatever a block is.
pub const SECTOR: u32 = 512;
/// The most data that a request can have. A driver that keeps to [`MOST_SEGMENT_BYTES`] and the number of
/// segments has less.
pub(super) const MOST_BYTES: u64 = 64 << 20;
/// The most bytes of a segment.
pub(super) const MOST_SEGMENT_BYTES: u32 = 256 << 10;
/// The most ranges that one request discards or zeroes.
pub(super) const MOST_RANGES: u32 = 16;
/// The most sectors of such a range: where the host has to write the zeroes, this takes time as well.
pub(super) const MOST_RANGE_SECTORS: u32 = 64 << 20 >> 9;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// The flag of a range that says it may be left without storage.
const UNMAP: u32 = 1;

/// The status of a request that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    /// It has failed.
    IoError = 1,
    /// There is no such request.
    Unsupported = 2,
}

/// What a chain begins with.
#[derive(Debug, Default, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

/// A range to discard or to zero, as the guest has it.
#[derive(Debug, Default, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawRange {
    sector: U64,
    sectors: U32,
    flags: U32,
}

/// A range of the disk, in bytes: whole sectors, within the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskRange {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// What is to be done, as far as the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Fill the writable buffers.
    Read(DiskRange),
    /// Take the readable buffers.
    Write(DiskRange),
    Flush,
    /// Fill the writable buffers with the serial number.
    GetId,
    /// Ranges are in the readable buffers, so many.
    Discard(usize),
    /// As with `Discard`.
    WriteZeroes(usize),
}

impl Request {
    /// The request of a chain with this header, so many readable bytes behind it, and so many writable
    /// ones before the status.
    pub(super) fn parse(
        header: &Header,
        readable: u64,
        writable: u64,
        disk: &Geometry,
    ) -> Result<Self, Status> {
        let sector = header.sector.get();
        let range = |bytes| DiskRange::new(sector, bytes, disk).ok_or(Status::IoError);
        let ranges = || {
            let size = size_of::<RawRange>() as u64;
            let count = readable / size;
            let right = readable.is_multiple_of(size) && (1..=MOST_RANGES.into()).contains(&count);
            let count = usize::try_from(count).ok().filter(|_| right);
            count.ok_or(Status::IoError)
        };
        let request = match header.kind.get() {
            IN => Self::Read(range(writable)?),
            OUT => Self::Write(range(readable)?),
            FLUSH => Self::Flush,
            GET_ID => Self::GetId,
            DISCARD => Self::Discard(ranges()?),
            WRITE_ZEROES => Self::WriteZeroes(ranges()?),
            _ => return Err(Status::Unsupported),
        };
        let changes = match request {
            Self::Write(_) | Self::Discard(_) | Self::WriteZeroes(_) => true,
            Self::Read(_) | Self::Flush | Self::GetId => false,
        };
        match disk.writes {
            Writes::Refused if changes => Err(Status::IoError),
            Writes::Refused | Writes::Taken => Ok(request),
        }
    }
}

impl DiskRange {
    /// `bytes` bytes from `sector` on, if they are whole sectors of the disk and not too many for one
    /// request.
    fn new(sector: u64, bytes: u64, disk: &Geometry) -> Option<Self> {
        let end = sector.checked_add(bytes / u64::from(SECTOR))?;
        let whole = bytes.is_multiple_of(SECTOR.into()) && bytes <= MOST_BYTES;
        let offset = sector.checked_mul(SECTOR.into())?;
        (whole && end <= disk.sectors).then_some(Self { offset, bytes })
    }
}

impl RawRange {
    /// The range to discard.
    pub(super) fn discarded(&self, disk: &Geometry) -> Result<DiskRange, Status> {
        match self.flags.get() {
            0 => self.range(disk),
            _ => Err(Status::Unsupported),
        }
    }

    /// The range to zero.
    pub(super) fn zeroed(&self, disk: &Geometry) -> Result<(DiskRange, Unmap), Status> {
        let unmap = match self.flags.get() {
            0 => Unmap::Forbidden,
            UNMAP => Unmap::Allowed,
            _ => return Err(Status::Unsupported),
        };
        Ok((self.range(disk)?, unmap))
    }

    fn range(&self, disk: &Geometry) -> Result<DiskRange, Status> {
        let sectors = self.sectors.get();
        let bytes = u64::from(sectors) * u64::from(SECTOR);
        let range = DiskRange::new(self.sector.get(), bytes, disk);
        range
            .filter(|_| sectors <= MOST_RANGE_SECTORS)
            .ok_or(Status::IoError)
    }
}
