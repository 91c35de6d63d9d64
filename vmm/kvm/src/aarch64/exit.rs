//! The exits that only arm64 vCPUs have.

use kvm_bindings::{KVM_EXIT_ARM_NISV, KVM_HYPERCALL_EXIT_SMC};
use kvm_ioctls::VcpuExit;

use crate::Ipa;
use crate::vcpu::RunPage;

/// How the guest made a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc`.
    Hvc,
    /// `smc`.
    Smc,
}

/// An exit of an arm64 vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnExit {
    /// A call that the SMCCC filter forwards. Arguments are in x1.., results go to x0..; the guest
    /// goes on after the call.
    Hypercall {
        /// The SMCCC function id.
        function: u32,
        /// How it was made.
        conduit: Conduit,
    },
    /// A load or store where no memory is, by an instruction that does not say what it does (`ldp`,
    /// SIMD, cache maintenance): it cannot be emulated, only refused.
    NoSyndrome {
        /// Where.
        at: Ipa,
    },
}

/// For the exits that all architectures share: an exit of this one borrows nothing.
pub type ArchExit<'a> = OwnExit;

/// `kvm_run.arm_nisv.fault_ipa`: which 64-bit field of the exit.
const NISV_FAULT_IPA: usize = 1;

/// What `exit` means, if it is one of these; `page` is the run page of the vCPU that it came from.
pub(crate) fn decode<'a>(exit: VcpuExit<'a>, page: &'a RunPage) -> Option<ArchExit<'a>> {
    match exit {
        VcpuExit::Hypercall(call) => Some(OwnExit::Hypercall {
            // SMCCC function ids have 32 bits; KVM leaves the upper half zero.
            function: u32::try_from(call.nr).unwrap_or(u32::MAX),
            conduit: match call.longmode & KVM_HYPERCALL_EXIT_SMC {
                0 => Conduit::Hvc,
                _ => Conduit::Smc,
            },
        }),
        VcpuExit::Unsupported(KVM_EXIT_ARM_NISV) => Some(OwnExit::NoSyndrome {
            at: Ipa::new(page.exit_u64::<NISV_FAULT_IPA>()),
        }),
        _ => None,
    }
}
