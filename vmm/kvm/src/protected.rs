//! Protected VMs of pKVM, on arm64.
//!
//! Memory that the host has given to such a VM is the guest's alone once it runs. The guest shares pages
//! and takes them back by calls to the hypervisor, of which this process hears nothing: to touch a page
//! that is not shared ends it by a signal.

use crate::{Error, Vm, VmKind};

/// `KVM_VM_TYPE_ARM_PROTECTED`.
pub(crate) const VM_TYPE: u64 = 1 << 31;

/// Why a host makes no protected VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtectedLack {
    /// There are none on other processors.
    #[error("protected VMs are of arm64 processors")]
    Architecture,
    /// The VM type is refused: the kernel does not know it, or does not run as pKVM.
    #[error(
        "its KVM makes no protected VMs: they need a kernel that has them (7.3 was tried) and runs with \
         kvm-arm.mode=protected on its command line"
    )]
    Mode,
}

/// Whether this host makes protected VMs: by making one, of a width that it offers.
///
/// # Errors
/// What is missing.
pub(crate) fn find(ipa_bits: u8) -> Result<(), ProtectedLack> {
    let made: Result<Vm, Error> = Vm::create(VmKind::Protected, ipa_bits);
    made.map(drop).map_err(|_| ProtectedLack::Mode)
}
