//! What only arm64 vCPUs stop for: calls of the platform, accesses that are refused.

use kvm::aarch64::OwnExit;
use kvm::{Fault, Ipa, Vcpu};

use super::{ASTRAY, DeviceAddresses, Processor, lost_memory};
use crate::run::Ending;

/// Answers the calls that the platform has had forwarded, for one vCPU.
pub trait GuestCalls: Send {
    /// Answers the SMCCC call of `function`: arguments are in the registers of `vcpu`, and so go the
    /// results.
    ///
    /// # Errors
    /// When KVM does not give or take a register.
    fn call(&mut self, function: u32, vcpu: &Vcpu) -> Result<(), kvm::Error>;
}

impl Processor {
    pub(super) fn answer(&mut self, exit: OwnExit) -> Result<Option<Ending>, kvm::Error> {
        let exits = &self.world.stats.exits;
        match exit {
            OwnExit::Hypercall { function, .. } => {
                exits.hypercall.add_one();
                self.hypercall(function)?;
            }
            OwnExit::NoSyndrome { at } => {
                exits.memory_fault.add_one();
                self.refuse("access that cannot be emulated", at)?;
            }
        }
        Ok(None)
    }

    fn hypercall(&mut self, function: u32) -> Result<(), kvm::Error> {
        /// SMCCC `NOT_SUPPORTED`.
        const NOT_SUPPORTED: u64 = u64::MAX;
        match &mut self.calls {
            Some(calls) => calls.call(function, &self.vcpu),
            None => self.vcpu.set_smccc_results([NOT_SUPPORTED]),
        }
    }

    /// Where shared pages have an alias, the alias of a private page is a hole that a guest's mistake
    /// falls into: its own fault. Anywhere else the host has lost memory that it owes the guest.
    pub(super) fn no_memory(&self, fault: Option<Fault>) -> Result<Option<Ending>, kvm::Error> {
        let DeviceAddresses::Shared(_) = self.world.devices else {
            return Ok(Some(lost_memory(fault)));
        };
        self.vcpu.inject_external_abort()?;
        if let Some(skipped) = ASTRAY.permit() {
            let place = self.place()?;
            tracing::warn!(skipped, "guest{place}: no memory for it there ({fault:x?})");
        }
        Ok(None)
    }

    /// Makes the access of the guest fail.
    pub(super) fn refuse(&self, what: &str, at: Ipa) -> Result<(), kvm::Error> {
        self.log_refusal(what, at)?;
        self.vcpu.inject_external_abort()
    }
}
