//! What a disk reads from and writes to.

use std::io;

use vm_memory::VolatileSlice;

/// Size and kind of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes that are best read and written as one: a power of two from 512 to 64 KiB. Requests may be
    /// smaller.
    pub block_bytes: u32,
    /// Whether it can be written.
    pub writes: Writes,
}

/// Whether a disk can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It can.
    Taken,
    /// It cannot.
    Refused,
}

/// What is behind a disk. Ranges are in bytes, whole sectors, and within the disk; several threads call at
/// once, and requests that overlap in time may be done in any order.
pub trait BlockBackend: Send + Sync {
    /// Fills `buffers`, one after another, from `offset` on.
    ///
    /// # Errors
    /// When the host cannot read: any of the buffers may then have been written.
    fn read(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Writes `buffers`, one after another, from `offset` on.
    ///
    /// # Errors
    /// When the host cannot write: any part of the range may then have been.
    fn write(&self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Makes durable what has been written: it survives the host's loss of power.
    ///
    /// # Errors
    /// When that cannot be promised.
    fn flush(&self) -> io::Result<()>;

    /// Is told that a range is not needed: it reads as anything afterwards.
    ///
    /// # Errors
    /// When the host cannot. That it has no use for the knowledge is no error.
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Makes a range read as zeroes, and may free what was behind it if `unmap` says so.
    ///
    /// # Errors
    /// When the host cannot.
    fn write_zeroes(&self, offset: u64, bytes: u64, unmap: Unmap) -> io::Result<()>;
}

/// Whether zeroed ranges may be left without storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmap {
    /// They may.
    Allowed,
    /// They keep it, so that a later write finds room.
    Forbidden,
}
