//! What an x86-64 VM is to those that protect it, from its making to its first instruction.

use std::sync::Arc;

use iommu::{Gpa, PageRange};
use kvm::{Vm, VmKind};

use crate::launch::LaunchError;
use crate::launch::created::Machine;
use crate::plan::VmPlan;
use crate::platform::{PageExits, Platform, snp, sw_protected, tdx};

/// A VM without content.
pub(in crate::launch) enum Guest {
    /// Nobody measures it.
    Unmeasured,
    /// A guest of SEV-SNP.
    Snp(snp::Guest),
    /// A TD.
    Td(tdx::Td),
}

/// A VM with its content.
pub(in crate::launch) enum LoadedGuest {
    /// Nobody measures it.
    Unmeasured,
    /// A guest of SEV-SNP.
    Snp(snp::LoadedGuest),
    /// A TD, and where its firmware lies.
    Td(tdx::LoadedTd, PageRange<Gpa>),
}

impl Guest {
    /// Makes the VM of `plan`.
    pub(in crate::launch) fn create(plan: &VmPlan) -> Result<(Vm, Self), LaunchError> {
        let kind = match plan.platform() {
            Platform::None => VmKind::Plain,
            Platform::SwProtected => VmKind::SwProtected,
            Platform::Snp => VmKind::Snp,
            Platform::Tdx => VmKind::Td,
            Platform::EmulatedRealm | Platform::Cca | Platform::Pkvm => {
                return Err(LaunchError::OtherMachine);
            }
        };
        let vm = Vm::create(kind, plan.ipa_bits())?;
        let guest = match kind {
            VmKind::Snp => Self::Snp(snp::Guest::new(&vm)?),
            VmKind::Td => Self::Td(tdx::Td::new(&vm, plan.ipa_bits())?),
            VmKind::SwProtected => {
                vm.hand_on_conversions()?;
                Self::Unmeasured
            }
            _ => Self::Unmeasured,
        };
        Ok((vm, guest))
    }
}

impl LoadedGuest {
    /// Ends what those that protect it measure. Returns what the platform makes of exits that are about
    /// pages.
    pub(in crate::launch) fn finalize(
        self,
        machine: &Machine,
        plan: &VmPlan,
    ) -> Result<Option<Arc<dyn PageExits>>, LaunchError> {
        let pages = Arc::clone(&machine.pages);
        Ok(match self {
            Self::Snp(guest) => Some(Arc::new(guest.finish(pages)?)),
            Self::Td(td, firmware) => Some(Arc::new(td.finalize(pages, Some(firmware))?)),
            Self::Unmeasured if plan.platform() == Platform::SwProtected => {
                Some(Arc::new(sw_protected::Conversions::new(pages)))
            }
            Self::Unmeasured => None,
        })
    }
}
