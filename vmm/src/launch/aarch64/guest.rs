//! What an arm64 VM is to those that protect it, from its making to its first instruction.

use std::sync::Arc;

use kvm::{Vm, VmKind};

use crate::launch::LaunchError;
use crate::launch::created::Machine;
use crate::plan::VmPlan;
use crate::platform::cca::{LoadedRealm, Realm};
use crate::platform::{PageExits, Platform};

/// A VM without content.
pub(in crate::launch) enum Guest {
    /// Nobody keeps its memory, or its guest does that with the hypervisor.
    Unmeasured,
    /// A Realm of Arm CCA.
    Realm(Realm),
}

/// A VM with its content.
pub(in crate::launch) enum LoadedGuest {
    /// Nobody keeps its memory, or its guest does that with the hypervisor.
    Unmeasured,
    /// A Realm of Arm CCA.
    Realm(LoadedRealm),
}

impl Guest {
    /// Makes the VM of `plan`.
    pub(in crate::launch) fn create(plan: &VmPlan) -> Result<(Vm, Self), LaunchError> {
        let bits = plan.ipa_bits();
        let kind = match plan.platform() {
            Platform::Cca => Realm::kind(bits)?,
            Platform::Pkvm => VmKind::Protected,
            Platform::None | Platform::EmulatedRealm => VmKind::Plain,
            Platform::SwProtected | Platform::Snp | Platform::Tdx => {
                return Err(LaunchError::OtherMachine);
            }
        };
        let vm = Vm::create(kind, bits)?;
        let guest = match kind {
            VmKind::Realm(form) => Self::Realm(Realm::new(&vm, form)?),
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
        let Self::Realm(realm) = self else {
            return Ok(None);
        };
        let pages = Arc::clone(&machine.pages);
        let exits = realm.activate(&machine.vcpus, pages, plan.shared_bit())?;
        Ok(Some(Arc::new(exits)))
    }
}
