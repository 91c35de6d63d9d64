//! What KVM refused.

use std::io;

use hostcall::gate;

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
    #[error("KVM cannot {operation}: {call} failed")]
    Ioctl {
        /// What was tried.
        operation: &'static str,
        /// By its name in the kernel.
        call: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no security processor, or no permission to use it.
    #[error("cannot open /dev/sev, the security processor that launches SNP guests")]
    SecurityProcessor(#[source] io::Error),
    /// What makes confidential VMs below KVM refuses.
    #[error("KVM cannot {operation}: {call} failed, and {who} says {code:#x}")]
    Firmware {
        /// What was tried.
        operation: &'static str,
        /// By its name in the kernel.
        call: &'static str,
        /// Who refuses.
        who: &'static str,
        /// In which words: the status of the SEV-SNP firmware ABI, or of the TDX module.
        code: u64,
        /// What the kernel made of it.
        #[source]
        source: io::Error,
    },
    /// A memory slot could not be set or removed.
    #[error("KVM cannot {operation} {bytes:#x} bytes of memory at {at}: {call} failed")]
    Slot {
        /// What was tried.
        operation: &'static str,
        /// By its name in the kernel.
        call: &'static str,
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
    /// A call that does its work bit by bit reports success, and has done nothing.
    #[error("{call} makes no progress at {at}")]
    NoProgress {
        /// By its name in the kernel.
        call: &'static str,
        /// Where it stands.
        at: Ipa,
    },
    /// There is no such general-purpose register.
    #[error("there is no register x{0}")]
    NoRegister(u8),
}

impl Error {
    /// A refused call, of KVM's own if what is below it, `who`, has left no `code`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn below_kvm(
        operation: &'static str,
        call: &'static str,
        who: &'static str,
        code: u64,
        source: io::Error,
    ) -> Self {
        match code {
            0 => Self::Ioctl {
                operation,
                call,
                source,
            },
            code => Self::Firmware {
                operation,
                call,
                who,
                code,
                source,
            },
        }
    }

    /// Whether a call that does its work bit by bit has stopped before its end, and is to be made again.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn asks_again(&self) -> bool {
        let (Self::Ioctl { source, .. } | Self::Firmware { source, .. }) = self else {
            return false;
        };
        matches!(source.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
    }
}

/// Makes one call to KVM, to do `operation`.
///
/// # Errors
/// When KVM refuses.
pub(crate) fn ioctl<T>(
    call: &'static str,
    operation: &'static str,
    make: impl FnOnce() -> Result<T, vmm_sys_util::errno::Error>,
) -> Result<T, Error> {
    let made = gate(call).and_then(|()| make().map_err(io::Error::from));
    made.map_err(|source| Error::Ioctl {
        operation,
        call,
        source,
    })
}
