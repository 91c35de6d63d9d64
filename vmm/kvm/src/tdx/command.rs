//! One sub-command of `KVM_MEMORY_ENCRYPT_OP`: `struct kvm_tdx_cmd`.
#![expect(
    unsafe_code,
    reason = "an ioctl whose argument depends on its sub-command"
)]

use std::ffi::c_ulong;
use std::io;
use std::os::fd::AsRawFd;

use hostcall::gate;
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use crate::Error;

// Its number is made with the size of a long, whatever the argument is.
ioctl_iowr_nr!(KVM_MEMORY_ENCRYPT_OP, 0xae, 0xba, c_ulong);

/// What to do, `enum kvm_tdx_cmd_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Command {
    Capabilities = 0,
    InitVm = 1,
    InitVcpu = 2,
    InitMemRegion = 3,
    FinalizeVm = 4,
    GetCpuid = 5,
}

impl Command {
    /// By its name in the kernel.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "KVM_TDX_CAPABILITIES",
            Self::InitVm => "KVM_TDX_INIT_VM",
            Self::InitVcpu => "KVM_TDX_INIT_VCPU",
            Self::InitMemRegion => "KVM_TDX_INIT_MEM_REGION",
            Self::FinalizeVm => "KVM_TDX_FINALIZE_VM",
            Self::GetCpuid => "KVM_TDX_GET_CPUID",
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Capabilities => "say what TDs can have",
            Self::InitVm => "make a TD",
            Self::InitVcpu => "make a vCPU of a TD",
            Self::InitMemRegion => "load a part of a TD",
            Self::FinalizeVm => "finalize a TD",
            Self::GetCpuid => "say what a vCPU of a TD is",
        }
    }
}

/// `struct kvm_tdx_cmd`.
#[repr(C)]
struct Request {
    id: u32,
    flags: u32,
    data: u64,
    hw_error: u64,
}
const _: () = assert!(size_of::<Request>() == 24);

/// Gives `command` to the VM or the vCPU `file`, with a number or the address of a structure.
///
/// # Errors
/// When KVM or the TDX module refuse.
pub(super) fn give(
    file: &impl AsRawFd,
    command: Command,
    flags: u32,
    data: u64,
) -> Result<(), Error> {
    let mut request = Request {
        id: command as u32,
        flags,
        data,
        hw_error: 0,
    };
    let call = command.name();
    let done = gate(call).and_then(|()| {
        // SAFETY: the kernel reads and writes one `Request`; what its `data` names, each caller has made
        // as the sub-command wants it, and it outlives the call.
        let done = unsafe { ioctl_with_mut_ref(file, KVM_MEMORY_ENCRYPT_OP(), &mut request) };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::from(errno::Error::last())),
        }
    });
    let operation = command.operation();
    done.map_err(|source| {
        Error::below_kvm(operation, call, "the TDX module", request.hw_error, source)
    })
}

/// The address of a structure, as `data` has it.
pub(super) fn address<T>(structure: &mut [T]) -> u64 {
    structure.as_mut_ptr().expose_provenance() as u64
}
