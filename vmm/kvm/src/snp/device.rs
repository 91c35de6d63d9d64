//! The security processor, as a file that KVM is handed.
#![expect(unsafe_code, reason = "opens a file by libc's call")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use hostcall::gate;

use crate::Error;

/// An open `/dev/sev` (`drivers/crypto/ccp`): who may open it may launch guests.
pub(super) struct SecurityProcessor(OwnedFd);

impl SecurityProcessor {
    pub(super) fn open() -> Result<Self, Error> {
        open().map(Self).map_err(Error::SecurityProcessor)
    }

    /// The number of its descriptor in this process, as `struct kvm_sev_cmd` has it.
    pub(super) fn number(&self) -> u32 {
        self.0.as_raw_fd().cast_unsigned()
    }
}

/// By the call that `kvm-ioctls` opens `/dev/kvm` with.
fn open() -> io::Result<OwnedFd> {
    gate("open /dev/sev")?;
    // SAFETY: the path is a string with an end.
    let fd = unsafe { libc::open(c"/dev/sev".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    match fd {
        0.. => {
            // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}
