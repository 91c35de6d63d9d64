//! A stretch of this process's address space whose backing is replaced piece by piece.
#![expect(unsafe_code, reason = "maps guest memory")]

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Guest RAM is placed at this alignment, so that a huge page of the host backs a huge page of the
/// guest: 2 MiB.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// What is behind a piece of a [`Mapping`].
#[derive(Clone, Copy)]
pub(super) enum Backing<'a> {
    /// Nothing: an access faults.
    Nothing,
    /// Fresh zero pages of this process, huge where the host can.
    Anonymous,
    /// Pages of a file from an offset on, shared with every other mapping of them.
    File(BorrowedFd<'a>, u64),
}

/// An address range that is ours until it is dropped. It begins on a huge page.
pub(super) struct Mapping {
    base: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the range belongs to no thread; whoever reads or writes it does so through raw pointers
// or volatile slices.
unsafe impl Send for Mapping {}
// SAFETY: as above; the fields never change, and the kernel serialises changes of the backing.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `bytes` of address space with nothing behind it.
    pub(super) fn reserve(bytes: usize) -> io::Result<Self> {
        let wide = bytes
            .checked_add(HUGE_PAGE)
            .filter(|_| bytes != 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without a fixed address the kernel picks a range that nothing uses.
        let found = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), wide, ProtFlags::empty(), flags)
        }?;
        let before = found.align_offset(HUGE_PAGE);
        let base = found.wrapping_byte_add(before);
        let reserved = Self {
            base: NonNull::new(base).ok_or(io::ErrorKind::AddrNotAvailable)?,
            bytes,
        };
        release(found, before)?;
        release(base.wrapping_byte_add(bytes), wide - before - bytes)?;
        Ok(reserved)
    }

    /// First address.
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr().cast()
    }

    /// Length in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts `backing` behind the `bytes` bytes at `offset`; what was there is gone.
    ///
    /// When this fails with `ENOMEM` the process has too many mappings (`vm.max_map_count`) and the
    /// old backing is still there.
    pub(super) fn replace(
        &self,
        offset: usize,
        bytes: usize,
        backing: Backing<'_>,
    ) -> io::Result<()> {
        let within = offset
            .checked_add(bytes)
            .is_some_and(|end| end <= self.bytes);
        if !within {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let at = self.base.as_ptr().wrapping_byte_add(offset);
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        match backing {
            Backing::Nothing => map_fixed(at, bytes, ProtFlags::empty()),
            Backing::Anonymous => {
                map_fixed(at, bytes, read_write)?;
                // SAFETY: the advice changes no content. A host without huge pages refuses it, and
                // then small ones do.
                let _ = unsafe { rustix::mm::madvise(at, bytes, Advice::LinuxHugepage) };
                Ok(())
            }
            Backing::File(file, from) => {
                let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
                // SAFETY: the range lies in this reservation (checked above), which only volatile
                // slices and the kernel look into; they bear a change of its content.
                unsafe { rustix::mm::mmap(at, bytes, read_write, flags, file, from) }?;
                Ok(())
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Err(error) = release(self.base.as_ptr(), self.bytes) {
            tracing::warn!("cannot unmap {} bytes of guest memory: {error}", self.bytes);
        }
    }
}

/// Maps fresh private pages over a piece of a reservation.
fn map_fixed(at: *mut c_void, bytes: usize, prot: ProtFlags) -> io::Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: called by `replace` only, which has checked that the range lies in its reservation.
    unsafe { rustix::mm::mmap_anonymous(at, bytes, prot, flags) }?;
    Ok(())
}

/// Gives a piece of a reservation back.
fn release(at: *mut c_void, bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: called for the margins of a fresh reservation, and for the whole of one that is
    // dropped: nothing else uses the range.
    unsafe { rustix::mm::munmap(at, bytes) }?;
    Ok(())
}
