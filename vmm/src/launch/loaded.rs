//! The third stage: the guest's memory holds what it boots.

use crate::plan::VmPlan;

use super::arch::LoadedGuest;
use super::created::Machine;
use super::{Created, Finalized, LaunchError, arch};

/// A VM with a program that has not been measured or entered.
pub struct Loaded {
    pub(super) plan: VmPlan,
    pub(super) guest: LoadedGuest,
    pub(super) machine: Machine,
}

impl Loaded {
    pub(super) fn new(created: Created) -> Result<Self, LaunchError> {
        let Created {
            plan,
            files,
            placement,
            guest,
            machine,
        } = created;
        let guest = arch::load(&machine, &plan, &files, placement, guest)?;
        Ok(Self {
            plan,
            guest,
            machine,
        })
    }

    /// Tells the platform that nothing is added to the guest's initial memory any more.
    ///
    /// # Errors
    /// When the platform refuses.
    pub fn finalize(self) -> Result<Finalized, LaunchError> {
        Finalized::new(self)
    }
}
