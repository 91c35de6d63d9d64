//! Calls of the kernel without anything between.
#![expect(
    unsafe_code,
    reason = "makes the kernel calls without anything between"
)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::ptr;

use libc::{c_int, c_ulong, c_void};

pub(crate) const GIB: usize = 1 << 30;
const HUGE_PAGE: usize = 2 << 20;
/// Where the memory is in the VM.
pub(crate) const GUEST: u64 = 0x8000_0000;

/// 1 GiB of this program's addresses, at a boundary of a huge page.
pub(crate) fn reserve(protection: c_int) -> io::Result<*mut c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let found = map(ptr::null_mut(), GIB + HUGE_PAGE, protection, flags, -1)?;
    Ok(found.wrapping_byte_add(found.align_offset(HUGE_PAGE)))
}

/// `mmap`, from the start of a file where there is one.
pub(crate) fn map(
    at: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    file: RawFd,
) -> io::Result<*mut c_void> {
    // SAFETY: without a fixed address the kernel picks a free range; with one it is a part of a range
    // that `reserve` has returned, which nothing in this program looks into.
    let mapped = unsafe { libc::mmap(at, bytes, protection, flags, file, 0) };
    match mapped {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        mapped => Ok(mapped),
    }
}

/// `madvise` of a part of a range that `reserve` has returned.
pub(crate) fn advise(at: *mut c_void, bytes: usize, advice: c_int) -> io::Result<()> {
    call(|| {
        // SAFETY: nothing in this program looks into the range.
        unsafe { libc::madvise(at, bytes, advice) }
    })
    .map(drop)
}

/// Frees the first bytes of a file.
pub(crate) fn punch(file: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    call(|| {
        // SAFETY: the file is this program's.
        unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, bytes) }
    })
    .map(drop)
}

/// An ioctl that takes a number.
pub(crate) fn ioctl(file: RawFd, request: c_ulong, value: u64) -> io::Result<c_int> {
    call(|| {
        // SAFETY: these requests take numbers.
        unsafe { libc::ioctl(file, request as _, value) }
    })
}

/// An ioctl that takes a structure.
pub(crate) fn ioctl_with<T>(file: RawFd, request: c_ulong, mut argument: T) -> io::Result<c_int> {
    call(|| {
        // SAFETY: each request comes with the structure that it takes.
        unsafe { libc::ioctl(file, request as _, &raw mut argument) }
    })
}

/// What a call returns, or its error.
pub(crate) fn call(call: impl FnOnce() -> c_int) -> io::Result<c_int> {
    match call() {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
