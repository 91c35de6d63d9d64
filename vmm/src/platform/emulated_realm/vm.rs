//! The emulated Realm as KVM and the launch see it.

use std::sync::Arc;

use devices::rate_limit::RateLimit;
use kvm::{Vcpu, Vm};

use super::rsi::{self, Arguments, Function};
use super::{MeasureError, Realm, RealmConfig, RealmDevices, RealmVcpu};
use crate::convert::Pages;
use crate::measure::InitialContent;
use crate::vcpu::GuestCalls;

/// A guest that asks for what is not there does not fill the log.
static UNKNOWN: RateLimit = RateLimit::per_second(5);

/// The Realm of one VM, until its vCPUs start.
pub struct RealmVm(Arc<Realm<Arc<Pages>>>);

impl RealmVm {
    /// Makes `vm` a Realm towards its guest. Before a vCPU runs.
    ///
    /// # Errors
    /// When KVM does not forward the calls (Linux older than 6.4).
    pub fn new(vm: &Vm, pages: Arc<Pages>, ipa_bits: u8) -> Result<Self, kvm::Error> {
        vm.smccc_filter_forward(rsi::FIRST_FUNCTION, rsi::FUNCTION_COUNT)?;
        let realm = Realm::new(RealmConfig::new(ipa_bits), pages);
        Ok(Self(Arc::new(realm)))
    }

    /// Measures what was loaded. Before a vCPU runs.
    ///
    /// # Errors
    /// When a page of it cannot be read.
    pub fn measure(&self, content: &InitialContent<'_>) -> Result<(), MeasureError> {
        self.0.measure(content)
    }

    /// Gives the Realm its assigned devices, if there are any. Before a vCPU runs, and once.
    pub fn assign(&self, devices: Arc<dyn RealmDevices>) {
        self.0.assign(devices);
    }

    /// What answers the calls of one vCPU.
    #[must_use]
    pub fn calls(&self) -> Box<dyn GuestCalls> {
        Box::new(RealmCalls {
            realm: Arc::clone(&self.0),
            state: RealmVcpu::default(),
        })
    }
}

/// Answers the calls of one vCPU.
struct RealmCalls {
    realm: Arc<Realm<Arc<Pages>>>,
    state: RealmVcpu,
}

impl GuestCalls for RealmCalls {
    fn call(&mut self, id: u32, vcpu: &Vcpu) -> Result<(), kvm::Error> {
        let function = Function::from_id(id);
        if function.is_none()
            && let Some(skipped) = UNKNOWN.permit()
        {
            tracing::debug!(
                skipped,
                "the guest calls {id:#x}, which RSI here does not have"
            );
        }
        // Each register is a call into the kernel: only those that matter are read.
        let count = function.map_or(0, Function::argument_count);
        let mut arguments = Arguments::default();
        for (register, argument) in (1..).zip(arguments.iter_mut().take(count)) {
            *argument = vcpu.x(register)?;
        }
        let reply = self.realm.call(&mut self.state, id, &arguments);
        let results = (0..).zip(reply.registers());
        results
            .into_iter()
            .try_for_each(|(register, value)| vcpu.set_x(register, *value))
    }
}
