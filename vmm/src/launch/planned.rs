//! The first stage: a plan and boot files that fit it. Nothing has been touched.

use crate::boot::BootFiles;
use crate::boot::aarch64::Placement;
use crate::config::spec::BootSpec;
use crate::diagnostic::Diagnostic;
use crate::plan::VmPlan;

use super::{Created, LaunchError};

/// A VM that can be launched, as far as can be known before.
pub struct Planned {
    pub(super) plan: VmPlan,
    pub(super) files: BootFiles,
    pub(super) placement: Placement,
}

impl Planned {
    /// Opens the boot files and finds places for them.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn new(plan: VmPlan, boot: &BootSpec) -> Result<Self, Vec<Diagnostic>> {
        let files = BootFiles::open(boot)?;
        let placement = files.place(plan.dram())?;
        Ok(Self {
            plan,
            files,
            placement,
        })
    }

    /// Creates the VM: from here on the host is used.
    ///
    /// # Errors
    /// When KVM or the host refuse.
    pub fn create(self) -> Result<Created, LaunchError> {
        Created::new(self)
    }
}
