//! The first stage: a plan and boot files that fit it. Nothing has been touched.

use crate::boot::BootFiles;
use std::path::Path;

use crate::assign;
use crate::boot::aarch64::Placement;
use crate::config::spec::BootSpec;
use crate::diagnostic::Diagnostic;
use crate::plan::VmPlan;
use crate::platform::{Platform, emulated_realm};

use super::{Created, LaunchError};

/// Where the kernel shows the host's devices.
pub(super) const SYSFS: &str = "/sys";

/// A VM that can be launched, as far as can be known before.
pub struct Planned {
    pub(super) plan: VmPlan,
    pub(super) files: BootFiles,
    pub(super) placement: Placement,
}

impl Planned {
    /// Looks whether the assigned devices are free, opens the boot files and finds places for them.
    ///
    /// # Errors
    /// Everything that is wrong with the devices, or else with the files.
    pub fn new(plan: VmPlan, boot: &BootSpec) -> Result<Self, Vec<Diagnostic>> {
        assign::check(&plan, Path::new(SYSFS))?;
        let mut files = BootFiles::open(boot)?;
        complete_cmdline(&plan, &mut files);
        let placement = files.place(plan.dram())?;
        tracing::info!("boot files are good");
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

/// Adds to the command line what a guest of this platform needs for its devices.
fn complete_cmdline(plan: &VmPlan, files: &mut BootFiles) {
    if plan.platform() != Platform::EmulatedRealm || plan.devices().is_empty() {
        return;
    }
    let memory = plan.dram().iter().map(|range| range.bytes()).sum();
    if let Some(word) = emulated_realm::cmdline::addition(&files.cmdline, memory) {
        match files.append(&word) {
            true => tracing::info!("added {word} to the kernel's command line"),
            false => tracing::warn!("no room for {word} on the kernel's command line"),
        }
    }
}
