//! Why a vCPU stopped running guest code.

use kvm_bindings::{
    KVM_EXIT_ARM_NISV, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_HYPERCALL_EXIT_SMC,
    KVM_MEMORY_EXIT_FLAG_PRIVATE, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::VcpuExit;

use super::run_page::RunPage;
use crate::Ipa;

/// How the guest made a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc`.
    Hvc,
    /// `smc`.
    Smc,
}

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

/// What the guest, or the kernel on its behalf, did to the whole VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemEvent {
    /// PSCI `SYSTEM_OFF`.
    Shutdown,
    /// PSCI `SYSTEM_RESET` or `SYSTEM_RESET2`.
    Reset,
    /// The guest crashed in a way that KVM noticed.
    Crash,
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
    /// A call that the SMCCC filter forwards. Arguments are in x1.., results go to x0..; the guest
    /// goes on after the call.
    Hypercall {
        /// The SMCCC function id.
        function: u32,
        /// How it was made.
        conduit: Conduit,
    },
    /// The VM is to end or to start over.
    SystemEvent(SystemEvent),
    /// Host memory behind a slot could not be had; `None` when KVM does not say where.
    MemoryFault(Option<Fault>),
    /// A load or store where no memory is, by an instruction that does not say what it does (`ldp`,
    /// SIMD, cache maintenance): it cannot be emulated, only refused.
    NoSyndrome {
        /// Where.
        at: Ipa,
    },
    /// A signal arrived, or [`Kick`](super::Kick) was used.
    Interrupted,
    /// KVM gave up: `KVM_EXIT_FAIL_ENTRY` or `KVM_EXIT_INTERNAL_ERROR`.
    Failed {
        /// The exit reason.
        reason: u32,
    },
    /// An exit that ccvm asks for none of.
    Unsupported {
        /// The exit reason.
        reason: u32,
    },
}

impl<'a> Exit<'a> {
    /// What `exit` means; `page` is the run page of the vCPU that it came from.
    pub(super) fn decode(exit: VcpuExit<'a>, page: &RunPage) -> Self {
        match exit {
            VcpuExit::MmioRead(at, data) => Self::MmioRead {
                at: Ipa::new(at),
                data,
            },
            VcpuExit::MmioWrite(at, data) => Self::MmioWrite {
                at: Ipa::new(at),
                data,
            },
            VcpuExit::Hypercall(call) => Self::Hypercall {
                // SMCCC function ids have 32 bits; KVM leaves the upper half zero.
                function: u32::try_from(call.nr).unwrap_or(u32::MAX),
                conduit: match call.longmode & KVM_HYPERCALL_EXIT_SMC {
                    0 => Conduit::Hvc,
                    _ => Conduit::Smc,
                },
            },
            VcpuExit::SystemEvent(kind, _) => Self::SystemEvent(match kind {
                KVM_SYSTEM_EVENT_SHUTDOWN => SystemEvent::Shutdown,
                KVM_SYSTEM_EVENT_RESET => SystemEvent::Reset,
                KVM_SYSTEM_EVENT_CRASH => SystemEvent::Crash,
                other => SystemEvent::Other(other),
            }),
            VcpuExit::MemoryFault { flags, gpa, size } => Self::MemoryFault(Some(Fault {
                at: Ipa::new(gpa),
                bytes: size,
                private: flags & u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE) != 0,
            })),
            VcpuExit::Intr => Self::Interrupted,
            VcpuExit::FailEntry(..) => Self::Failed {
                reason: KVM_EXIT_FAIL_ENTRY,
            },
            VcpuExit::InternalError => Self::Failed {
                reason: KVM_EXIT_INTERNAL_ERROR,
            },
            VcpuExit::Unsupported(KVM_EXIT_ARM_NISV) => Self::NoSyndrome {
                at: page.nisv_address(),
            },
            _ => Self::Unsupported {
                reason: page.exit_reason(),
            },
        }
    }
}
