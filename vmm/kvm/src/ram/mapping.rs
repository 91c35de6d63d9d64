//! A stretch of this process's address space whose backing is replaced piece by piece.
#![expect(unsafe_code, reason = "maps guest memory")]

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use hostcall::gate;
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
    /// The pages of a file from its pool of huge pages, set aside for this mapping at once.
    Pool(BorrowedFd<'a>),
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
    /// Reserves `bytes` of address space with nothing behind it, at a multiple of `alignment`, which
    /// is the size of some page.
    pub(super) fn reserve(bytes: usize, alignment: usize) -> io::Result<Self> {
        let wide = bytes
            .checked_add(alignment)
            .filter(|_| bytes != 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        gate("mmap")?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without a fixed address the kernel picks a range that nothing uses.
        let found = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), wide, ProtFlags::empty(), flags)
        }?;
        let before = found.align_offset(alignment);
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

    /// The address of the `bytes` bytes at `offset`, all of which are in the mapping.
    fn at(&self, offset: usize, bytes: usize) -> io::Result<*mut c_void> {
        let within = offset
            .checked_add(bytes)
            .is_some_and(|end| end <= self.bytes);
        match within {
            true => Ok(self.base.as_ptr().wrapping_byte_add(offset)),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
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
        let at = self.at(offset, bytes)?;
        gate("mmap")?;
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
            Backing::File(file, from) => map_file(at, bytes, MapFlags::NORESERVE, file, from),
            Backing::Pool(file) => map_file(at, bytes, MapFlags::empty(), file, 0),
        }
    }

    /// Has the kernel put small pages only behind all of it.
    pub(super) fn refuse_huge_pages(&self) -> io::Result<()> {
        let at = self.at(0, self.bytes)?;
        gate("madvise")?;
        // SAFETY: the advice changes no content. A host without huge pages refuses it, and has none.
        match unsafe { rustix::mm::madvise(at, self.bytes, Advice::LinuxNoHugepage) } {
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the memory behind the `bytes` bytes at `offset`, which is [`Backing::Anonymous`], back to the
    /// host: they read zero from now on.
    pub(super) fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let at = self.at(offset, bytes)?;
        gate("madvise")?;
        // SAFETY: the range lies in this mapping (checked by `at`). Only volatile slices and the kernel look
        // into it; they bear a change of its content.
        unsafe { rustix::mm::madvise(at, bytes, Advice::LinuxDontNeed) }?;
        Ok(())
    }

    /// Has the kernel put a page behind every address of the `bytes` bytes at `offset`.
    ///
    /// Fails with `InvalidInput` where the kernel does not know the call, too.
    pub(super) fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let at = self.at(offset, bytes)?;
        let populate = || {
            // SAFETY: the range lies in this mapping (checked above); its content stays.
            unsafe { rustix::mm::madvise(at, bytes, Advice::LinuxPopulateWrite) }
        };
        Ok(rustix::io::retry_on_intr(populate)?)
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

/// Maps pages of a file over a piece of a reservation.
fn map_file(
    at: *mut c_void,
    bytes: usize,
    reserve: MapFlags,
    file: BorrowedFd<'_>,
    from: u64,
) -> io::Result<()> {
    let read_write = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::FIXED | reserve;
    // SAFETY: called by `replace` only, which has checked that the range lies in its reservation. Only
    // volatile slices and the kernel look into it; they bear a change of its content.
    unsafe { rustix::mm::mmap(at, bytes, read_write, flags, file, from) }?;
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
