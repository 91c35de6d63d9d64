//! The fourth stage: the VM as it will be entered.

use std::sync::Arc;

use crate::control::ControlSocket;
use crate::plan::VmPlan;
use crate::platform::PageExits;
use crate::stats::Stats;

use super::created::Machine;
use super::{LaunchError, Loaded, Running};

/// A VM that is ready to run.
pub struct Finalized {
    pub(super) plan: VmPlan,
    /// What the platform makes of exits that are about pages.
    pub(super) page_exits: Option<Arc<dyn PageExits>>,
    pub(super) machine: Machine,
}

impl Finalized {
    pub(super) fn new(loaded: Loaded) -> Result<Self, LaunchError> {
        let Loaded {
            plan,
            guest,
            machine,
        } = loaded;
        let page_exits = guest.finalize(&machine, &plan)?;
        Ok(Self {
            page_exits,
            plan,
            machine,
        })
    }

    /// Starts the vCPUs, and a thread that answers at the control socket, if there is one.
    ///
    /// # Errors
    /// When threads or events cannot be had.
    pub fn start(
        self,
        stats: Arc<Stats>,
        control: Option<ControlSocket>,
    ) -> Result<Running, LaunchError> {
        Running::new(self, stats, control)
    }
}
