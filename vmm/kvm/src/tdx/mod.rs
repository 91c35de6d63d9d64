//! Trust domains of Intel TDX, as KVM makes them (`Documentation/virt/kvm/x86/intel-tdx.rst`).
//!
//! ```text
//!   KVM_CREATE_VM(5) ─► KVM_TDX_CAPABILITIES ─► KVM_TDX_INIT_VM ─► interrupt controllers, memory slots ─┐
//!                                               Initialized                                             │
//!     ┌─ each vCPU: KVM_TDX_GET_CPUID ─► KVM_SET_CPUID2 ─► KVM_TDX_INIT_VCPU ◄───────────────────────────┘
//!     ▼
//!   first vCPU: KVM_TDX_INIT_MEM_REGION, for all that is there ─► KVM_TDX_FINALIZE_VM
//! ```
//! All of them are sub-commands of `KVM_MEMORY_ENCRYPT_OP`, of the VM or of a vCPU, carried out by the
//! TDX module. No machine of the project has one: what is tested is what a kernel is asked for.

mod call;
mod capabilities;
mod command;
mod cpuid_list;
mod init_vm;
mod region;
mod vcpu;

use crate::x86_64::Cpuid;
use crate::{Error, Vcpu, Vm, VmKind};
use capabilities::Capabilities;
use command::{Command, give};

pub(crate) use call::EXIT_TDX;
pub use call::{TdCall, TdCallKind, TdStatus};
pub use region::Measure;

/// How wide a TD's guest-physical addresses are; the highest bit tells shared ones from private ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gpaw {
    /// 48 bits, shared by bit 47. Every host has it.
    Bits48,
    /// 52 bits, shared by bit 51. On hosts with EPT of five levels.
    Bits52,
}

impl Gpaw {
    /// The width of so many bits; `None` for others than 48 and 52.
    #[must_use]
    pub const fn of(bits: u8) -> Option<Self> {
        match bits {
            48 => Some(Self::Bits48),
            52 => Some(Self::Bits52),
            _ => None,
        }
    }

    /// In bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Bits48 => 48,
            Self::Bits52 => 52,
        }
    }
}

/// A TD without content. Its vCPUs come next.
pub struct Initialized {
    vm: Vm,
}

impl Initialized {
    /// Makes the VM `vm`, which has neither memory nor vCPUs, a TD whose guest-physical addresses have
    /// this width, with as much of `supported` as can be configured.
    ///
    /// # Errors
    /// When `vm` is of another kind, or KVM or the TDX module refuse.
    pub fn new(vm: &Vm, gpaw: Gpaw, supported: &Cpuid) -> Result<Self, Error> {
        if vm.kind() != VmKind::Td {
            return Err(Error::Missing("TD in a VM of another kind"));
        }
        let capabilities = Capabilities::of(vm)?;
        init_vm::init_vm(vm, &capabilities, gpaw, supported)?;
        // Without it KVM refuses a guest that changes the state of a page.
        vm.hand_on_conversions()?;
        Ok(Self { vm: vm.clone() })
    }

    /// Ends the measurement: from here on the TD can run.
    ///
    /// # Errors
    /// When KVM or the TDX module refuse.
    pub fn finalize(self) -> Result<(), Error> {
        give(self.vm.fd(), Command::FinalizeVm, 0, 0)
    }
}

impl Vcpu {
    /// Adds a processor to the TD `vm`, which has its interrupt controllers. Its first register, RCX,
    /// holds `argument`: by it firmware finds what it is told (TD HOB).
    ///
    /// # Errors
    /// When KVM or the TDX module refuse.
    pub fn create_in_td(vm: &Vm, index: u32, argument: u64) -> Result<Self, Error> {
        vcpu::create(vm, index, argument)
    }
}
