//! VMs with private memory that only KVM keeps from their host: `KVM_X86_SW_PROTECTED_VM`.
//!
//! ```text
//!   guest: vmmcall 12 (address, pages, private or shared) ─► KVM ─► exit ─► KVM_SET_MEMORY_ATTRIBUTES
//!   guest: load, store ─► by the attribute of the page: guest_memfd, or the memory of the slot
//! ```
//! The kernel has them for development and tests (`CONFIG_KVM_SW_PROTECTED_VM`): the whole interface of
//! private memory, and no protection by a processor. Nothing but the guest fills private memory.

use iommu::{Gpa, PAGE_SIZE, PageRange, Visibility};
use kvm_bindings::{KVM_CAP_EXIT_HYPERCALL, kvm_enable_cap};

use crate::error::ioctl;
use crate::{Error, Vm, VmKind};

/// `KVM_X86_SW_PROTECTED_VM`.
pub(crate) const VM_TYPE: u64 = 1;

/// `KVM_HC_MAP_GPA_RANGE`: the guest says which of its pages are private. Arguments: the first address,
/// the number of 4 KiB pages, attributes (`Documentation/virt/kvm/x86/hypercalls.rst`).
pub const MAP_GPA_RANGE: u64 = 12;

/// Why a host makes no such VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SwProtectedLack {
    /// There are none on other processors.
    #[error("software-protected VMs are of x86-64 processors")]
    Architecture,
    /// The VM type is refused.
    #[error(
        "its KVM makes no VMs of this type: they need a kernel with CONFIG_KVM_SW_PROTECTED_VM (Linux 6.8 \
         and later) and nested paging (parameter tdp_mmu of the module kvm, npt of kvm_amd or ept of \
         kvm_intel)"
    )]
    VmType,
    /// No private memory.
    #[error("its KVM makes VMs of this type, but no guest_memfd for their memory")]
    GuestMemfd,
    /// KVM does not keep the state of pages.
    #[error("its KVM makes VMs of this type, but refuses KVM_SET_MEMORY_ATTRIBUTES")]
    PageStates,
    /// The guest has no way to say which pages are private.
    #[error(
        "its KVM makes VMs of this type, but does not hand on the call by which a guest converts pages \
         (KVM_CAP_EXIT_HYPERCALL for KVM_HC_MAP_GPA_RANGE)"
    )]
    Conversions,
}

impl Vm {
    /// Has the guest's [`MAP_GPA_RANGE`] stop its vCPU, for the caller to answer. Before the first vCPU
    /// runs.
    ///
    /// # Errors
    /// When KVM cannot (`KVM_CAP_EXIT_HYPERCALL`, Linux 5.14).
    pub fn hand_on_conversions(&self) -> Result<(), Error> {
        let capability = kvm_enable_cap {
            cap: KVM_CAP_EXIT_HYPERCALL,
            args: [1 << MAP_GPA_RANGE, 0, 0, 0],
            ..Default::default()
        };
        let operation = "hand on the call by which a guest converts pages";
        ioctl("KVM_ENABLE_CAP", operation, || {
            self.fd().enable_cap(&capability)
        })
    }
}

/// Whether this host makes such VMs: by making one, which never runs and goes at once. What is asked of
/// `/dev/kvm` alone is not what a VM of this type has.
///
/// # Errors
/// What is missing first.
pub fn find() -> Result<(), SwProtectedLack> {
    // The width is a matter of CPUID on these processors.
    let vm = Vm::create(VmKind::SwProtected, 0).map_err(|_| SwProtectedLack::VmType)?;
    let page = PageRange::new(Gpa::new(0), PAGE_SIZE).map_err(|_| SwProtectedLack::PageStates)?;
    vm.guest_memfd(page.bytes())
        .map_err(|_| SwProtectedLack::GuestMemfd)?;
    vm.set_visibility(page, Visibility::Private)
        .map_err(|_| SwProtectedLack::PageStates)?;
    vm.hand_on_conversions()
        .map_err(|_| SwProtectedLack::Conversions)
}
