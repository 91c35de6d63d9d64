//! What KVM refused.

use std::io;

use crate::Ipa;

/// Why an operation on a VM failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no KVM, or no permission to use it.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// KVM speaks another version of its API.
    #[error("KVM has API version {0}, ccvm needs 12")]
    Api(i32),
    /// KVM lacks something that ccvm cannot do without.
    #[error("this KVM has no {0}")]
    Missing(&'static str),
    /// An ioctl failed.
    #[error("KVM cannot {operation}")]
    Ioctl {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A memory slot could not be set or removed.
    #[error("KVM cannot {operation} {bytes:#x} bytes of memory at {at}")]
    Slot {
        /// What was tried.
        operation: &'static str,
        /// Where the slot starts.
        at: Ipa,
        /// Its length in bytes.
        bytes: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A slot must start and end on a page boundary.
    #[error("{bytes:#x} bytes of memory at {at} are not whole 4 KiB pages")]
    Misaligned {
        /// Where the slot would start.
        at: Ipa,
        /// Its length in bytes.
        bytes: u64,
    },
    /// The slot was removed before, or is one of another VM.
    #[error("this VM has no memory slot {0}")]
    NoSlot(u32),
    /// Host memory could not be had.
    #[error("cannot {operation} {bytes:#x} bytes of host memory")]
    Memory {
        /// What was tried.
        operation: &'static str,
        /// How many bytes.
        bytes: u64,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no such general-purpose register.
    #[error("there is no register x{0}")]
    NoRegister(u8),
}

impl Error {
    /// For `map_err`: an ioctl that was to do `operation`.
    pub(crate) fn ioctl(
        operation: &'static str,
    ) -> impl FnOnce(vmm_sys_util::errno::Error) -> Self {
        move |errno| Self::Ioctl {
            operation,
            source: errno.into(),
        }
    }
}
