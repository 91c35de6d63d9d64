//! One writer, or any number of readers: locks of open file descriptions.
//!
//! A lock goes when the file is closed, however the process ends. It is over the whole file, so that it
//! is in the way of QEMU's locks, which are of the same kind and on single bytes.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::config::spec::DiskAccess;

/// Somebody else has the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InUse;

/// Locks `file` for this kind of access.
///
/// # Errors
/// When the file system has no such locks.
pub(super) fn lock(file: &File, access: DiskAccess) -> io::Result<Result<(), InUse>> {
    let kind = match access {
        DiskAccess::ReadOnly => libc::F_RDLCK,
        DiskAccess::ReadWrite => libc::F_WRLCK,
    };
    let whole = libc::flock {
        l_type: i16::try_from(kind).map_err(io::Error::other)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(Ok(())),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(Err(InUse)),
        Err(other) => Err(other.into()),
    }
}
