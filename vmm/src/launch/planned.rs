//! The first stage: a plan and boot files that fit it. Nothing has been touched.

use std::path::Path;

use crate::assign;
use crate::boot::BootFiles;
use crate::config::spec::{BootSpec, ResourceSpec};
use crate::diagnostic::Diagnostic;
use crate::emulate::OpenDevices;
use crate::plan::VmPlan;

use super::arch::{KernelImage, Placement};
use super::{Created, LaunchError, Surroundings};

/// Where the kernel shows the host's devices.
pub(crate) const SYSFS: &str = "/sys";

/// A VM that can be launched, as far as can be known before.
pub struct Planned {
    pub(super) plan: VmPlan,
    pub(super) files: BootFiles<KernelImage>,
    pub(super) placement: Placement,
    pub(super) resources: ResourceSpec,
    pub(super) emulated: OpenDevices,
    #[cfg(debug_assertions)]
    pub(super) mirror: iommu::Mirror,
}

impl Planned {
    /// Looks whether the assigned devices are free, opens the boot files and finds places for them, and
    /// opens what the emulated devices need.
    ///
    /// # Errors
    /// Everything that is wrong with the devices, or else with the files.
    pub fn new(
        plan: VmPlan,
        boot: &BootSpec,
        resources: ResourceSpec,
    ) -> Result<Self, Vec<Diagnostic>> {
        assign::check(&plan, Path::new(SYSFS))?;
        let mut files = BootFiles::open(boot)?;
        files.complete(&plan);
        let placement = files.place(&plan)?;
        let emulated = OpenDevices::open(&plan)?;
        tracing::info!("boot files are good");
        Ok(Self {
            plan,
            files,
            placement,
            resources,
            emulated,
            #[cfg(debug_assertions)]
            mirror: iommu::Mirror::Kept,
        })
    }

    /// Has the DMA table of an accepted device hold private pages only, to show what breaks then.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn without_mirror(self) -> Self {
        Self {
            mirror: iommu::Mirror::LeftOut,
            ..self
        }
    }

    /// Creates the VM: from here on the host is used.
    ///
    /// # Errors
    /// When KVM or the host refuse.
    pub fn create(self, surroundings: Surroundings<'_>) -> Result<Created, LaunchError> {
        Created::new(self, surroundings)
    }
}
