//! Guests of AMD SEV-SNP, as KVM makes them (`Documentation/virt/kvm/x86/amd-memory-encryption.rst`,
//! sections 18 to 21).
//!
//! ```text
//!   KVM_CREATE_VM(4) ─► KVM_SEV_INIT2 ─► memory slots, private pages, interrupt controllers, vCPUs ─┐
//!                       Initialized                                                                 │
//!     ┌───────────────── KVM_SEV_SNP_LAUNCH_START ◄─────────────────────────────────────────────────┘
//!     ▼
//!   Started ─► KVM_SEV_SNP_LAUNCH_UPDATE, for all that is there ─► registers of the first vCPU ─► KVM_SEV_SNP_LAUNCH_FINISH
//! ```
//! All of them are sub-commands of `KVM_MEMORY_ENCRYPT_OP`, carried out by the security processor behind
//! `/dev/sev`. No machine of the project has one: what is tested is what a kernel is asked for.

mod command;
mod cpuid_page;
mod device;
mod update;

use iommu::{Gpa, PageRange};
use kvm_bindings::{kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start};

use crate::ram::GuestRam;
use crate::{Error, Vm, VmKind};
use command::{Command, give};
use device::SecurityProcessor;

pub use cpuid_page::{CpuidPage, TooManyLeaves};
pub use update::Content;

/// What the owner of a guest that says nothing lets the host do (SEV-SNP firmware ABI, 56860, "Guest Policy"): run it on
/// processors with SMT. No debugging, no migration agent. Bit 17 is always set.
pub const POLICY: u64 = 1 << 16 | 1 << 17;

/// The version of the protocol by which the guest asks KVM for things: 2, the first of SNP guests.
const GHCB_VERSION: u16 = 2;

/// A guest that the security processor knows of, without content.
pub struct Initialized {
    vm: Vm,
    processor: SecurityProcessor,
}

impl Initialized {
    /// Makes the VM `vm`, which has neither memory nor vCPUs, an SNP guest.
    ///
    /// # Errors
    /// When `vm` is of another kind, there is no `/dev/sev`, or KVM refuses.
    pub fn new(vm: &Vm) -> Result<Self, Error> {
        if vm.kind() != VmKind::Snp {
            return Err(Error::Missing("SNP guest in a VM of another kind"));
        }
        let processor = SecurityProcessor::open()?;
        let mut init = kvm_sev_init {
            ghcb_version: GHCB_VERSION,
            ..Default::default()
        };
        give(vm, &processor, Command::Init, &mut init)?;
        // Without it KVM refuses a guest that changes the state of a page.
        vm.hand_on_conversions()?;
        Ok(Self {
            vm: vm.clone(),
            processor,
        })
    }

    /// Begins the measurement of a guest whose owner lets the host do what `policy` says. After the memory slots and
    /// the vCPUs.
    ///
    /// # Errors
    /// When KVM or the security processor refuse.
    pub fn start(self, policy: u64) -> Result<Started, Error> {
        let mut start = kvm_sev_snp_launch_start {
            policy,
            ..Default::default()
        };
        give(&self.vm, &self.processor, Command::Start, &mut start)?;
        Ok(Started {
            vm: self.vm,
            processor: self.processor,
        })
    }
}

/// A guest that takes its initial content and measures it.
pub struct Started {
    vm: Vm,
    processor: SecurityProcessor,
}

impl Started {
    /// Makes `range` private content of the guest, of which `content` says what it is. What is copied
    /// comes from the shared form of the same pages in `ram`.
    ///
    /// # Errors
    /// When the range is not within one range of `ram`, has content already, or KVM or the security
    /// processor refuse.
    pub fn update(
        &self,
        ram: &GuestRam,
        range: PageRange<Gpa>,
        content: Content,
    ) -> Result<(), Error> {
        update::update(&self.vm, &self.processor, ram, range, content)
    }

    /// Ends the measurement, with the registers that the vCPUs have now: from here on the guest can run,
    /// and nobody else sees them.
    ///
    /// # Errors
    /// When KVM or the security processor refuse.
    pub fn finish(self) -> Result<(), Error> {
        let mut finish = kvm_sev_snp_launch_finish::default();
        give(&self.vm, &self.processor, Command::Finish, &mut finish)
    }
}
