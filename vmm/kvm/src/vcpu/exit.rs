//! Why a vCPU stopped running guest code.

use kvm_bindings::{
    KVM_EXIT_MEMORY_FAULT, KVM_MEMORY_EXIT_FLAG_PRIVATE, KVM_SYSTEM_EVENT_CRASH,
    KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::VcpuExit;

use super::gave_up::GaveUp;
use super::run_page::RunPage;
use crate::Ipa;
use crate::arch::{self, ArchExit};

/// Where guest memory could not be had, as far as KVM says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// First byte.
    pub at: Ipa,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether the guest meant the private page.
    pub private: bool,
}

impl Fault {
    /// What a `KVM_EXIT_MEMORY_FAULT` says: `kvm_run.memory_fault` is flags, address and size.
    fn of(page: &RunPage) -> Self {
        Self {
            at: Ipa::new(page.exit_u64::<1>()),
            bytes: page.exit_u64::<2>(),
            private: page.exit_u64::<0>() & u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE) != 0,
        }
    }
}

/// What the guest, or the kernel on its behalf, did to the whole VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemEvent {
    /// The guest turned itself off (arm64: PSCI `SYSTEM_OFF`).
    Shutdown,
    /// The guest asked to start over (arm64: PSCI `SYSTEM_RESET` or `SYSTEM_RESET2`).
    Reset,
    /// The guest crashed in a way that KVM noticed.
    Crash,
    /// An SNP guest ends itself by the protocol between it and KVM (GHCB specification, "Termination
    /// Request"): what it wrote into the protocol's register.
    SevTermination(u64),
    /// A TD ends itself (`TDG.VP.VMCALL<ReportFatalError>`): its error code, R12.
    TdFatalError(u64),
    /// A `KVM_SYSTEM_EVENT_*` that ccvm asks for none of.
    Other(u32),
}

/// Why [`Vcpu::run`](super::Vcpu::run) returned. Closed: what is not here is [`Exit::Unsupported`].
#[derive(Debug)]
pub enum Exit<'a> {
    /// A load where no memory is. What is put in `data` (1, 2, 4 or 8 bytes, little endian) is what
    /// the guest reads when the vCPU runs next.
    MmioRead {
        /// Where.
        at: Ipa,
        /// The answer.
        data: &'a mut [u8],
    },
    /// A store where no writable memory is.
    MmioWrite {
        /// Where.
        at: Ipa,
        /// What: 1, 2, 4 or 8 bytes, little endian.
        data: &'a [u8],
    },
    /// The VM is to end or to start over.
    SystemEvent(SystemEvent),
    /// Host memory behind a slot could not be had; `None` when KVM does not say where. Where pages have
    /// two forms, also: the guest asks for the other form of these pages.
    MemoryFault(Option<Fault>),
    /// What only vCPUs of this architecture do.
    Arch(ArchExit<'a>),
    /// A signal arrived, or [`Kick`](super::Kick) was used.
    Interrupted,
    /// The RMM does not run the Realm any more: another vCPU has turned it off, and returns with how. KVM
    /// holds this one when it runs next, or soon after.
    RealmOff,
    /// KVM gave up: `KVM_EXIT_FAIL_ENTRY` or `KVM_EXIT_INTERNAL_ERROR`.
    Failed(GaveUp),
    /// An exit that ccvm asks for none of.
    Unsupported {
        /// The exit reason.
        reason: u32,
    },
}

/// `KVM_SYSTEM_EVENT_SEV_TERM` and `KVM_SYSTEM_EVENT_TDX_FATAL` (`include/uapi/linux/kvm.h`).
const SEV_TERMINATION: u32 = 6;
const TD_FATAL_ERROR: u32 = 7;

/// Where register R12 is among those of a TD that reports an error.
const R12: usize = 12;

/// What comes with a system event, as far as it does.
fn datum(data: &[u64], index: usize) -> u64 {
    data.get(index).copied().unwrap_or(0)
}

impl<'a> Exit<'a> {
    /// What `exit` means; `page` is the run page of the vCPU that it came from.
    pub(super) fn decode(exit: VcpuExit<'a>, page: &'a RunPage) -> Self {
        match exit {
            VcpuExit::MmioRead(at, data) => Self::MmioRead {
                at: Ipa::new(at),
                data,
            },
            VcpuExit::MmioWrite(at, data) => Self::MmioWrite {
                at: Ipa::new(at),
                data,
            },
            VcpuExit::SystemEvent(kind, data) => Self::SystemEvent(match kind {
                KVM_SYSTEM_EVENT_SHUTDOWN => SystemEvent::Shutdown,
                KVM_SYSTEM_EVENT_RESET => SystemEvent::Reset,
                KVM_SYSTEM_EVENT_CRASH => SystemEvent::Crash,
                SEV_TERMINATION => SystemEvent::SevTermination(datum(data, 0)),
                TD_FATAL_ERROR => SystemEvent::TdFatalError(datum(data, R12)),
                other => SystemEvent::Other(other),
            }),
            // With the error `EFAULT`, or without one where KVM is asked again to complete a change.
            VcpuExit::MemoryFault { .. } | VcpuExit::Unsupported(KVM_EXIT_MEMORY_FAULT) => {
                Self::MemoryFault(Some(Fault::of(page)))
            }
            VcpuExit::Intr => Self::Interrupted,
            VcpuExit::FailEntry(..) => Self::Failed(GaveUp::at_entry(page)),
            VcpuExit::InternalError => Self::Failed(GaveUp::inside(page)),
            other => match arch::decode(other, page) {
                Some(exit) => Self::Arch(exit),
                None => Self::Unsupported {
                    reason: page.exit_reason(),
                },
            },
        }
    }
}
