//! The memory of the process under test, as a kernel reaches it: a bad address is an error.
#![expect(unsafe_code, reason = "reaches what raw addresses name")]

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::MemfdFlags;

use crate::Errno;

pub(crate) fn set_errno(errno: Errno) {
    // SAFETY: libc gives the address of this thread's variable.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it is this thread's, and nobody else's.
    unsafe { place.write(errno) };
}

/// The `N` bytes at `address`.
pub(crate) fn copy_in<const N: usize>(address: u64) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    read(address, &mut bytes)?;
    Ok(bytes)
}

/// Fills `bytes` from `address`.
pub(crate) fn read(address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
    let scratch = scratch()?;
    // SAFETY: the kernel checks the address, as it does for any call.
    let done = unsafe { libc::pwrite(scratch.as_raw_fd(), pointer(address), bytes.len(), 0) };
    whole(done, bytes.len())?;
    scratch.read_exact_at(bytes, 0).map_err(|_| libc::EIO)
}

/// Puts `bytes` at `address`.
pub(crate) fn write(address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let scratch = scratch()?;
    scratch.write_all_at(bytes, 0).map_err(|_| libc::EIO)?;
    // SAFETY: the kernel checks the address, and the code under test has passed it to be written to.
    let done = unsafe { libc::pread(scratch.as_raw_fd(), pointer(address), bytes.len(), 0) };
    whole(done, bytes.len())
}

/// A file through which the real kernel copies: for it a bad address is an error, too.
fn scratch() -> Result<File, Errno> {
    let file = rustix::fs::memfd_create("scratch", MemfdFlags::CLOEXEC);
    file.map(File::from).map_err(|_| libc::ENOMEM)
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}

fn whole(done: isize, bytes: usize) -> Result<(), Errno> {
    match usize::try_from(done) {
        Ok(done) if done == bytes => Ok(()),
        _ => Err(libc::EFAULT),
    }
}
