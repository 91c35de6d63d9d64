//! The fourth stage: the VM as it will be entered.

use std::sync::Arc;

use crate::plan::VmPlan;
use crate::stats::Stats;

use super::created::Machine;
use super::{LaunchError, Loaded, Running};

/// A VM that is ready to run.
pub struct Finalized {
    pub(super) plan: VmPlan,
    pub(super) machine: Machine,
}

impl Finalized {
    pub(super) fn new(loaded: Loaded) -> Result<Self, LaunchError> {
        let Loaded { plan, machine } = loaded;
        Ok(Self { plan, machine })
    }

    /// Starts the vCPUs.
    ///
    /// # Errors
    /// When threads or events cannot be had.
    pub fn start(self, stats: Arc<Stats>) -> Result<Running, LaunchError> {
        Running::new(self, stats)
    }
}
