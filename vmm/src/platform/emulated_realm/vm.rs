//! The emulated Realm as KVM and the launch see it.

use std::sync::Arc;

use devices::rate_limit::RateLimit;
use iommu::{Gpa, PageRange};
use kvm::Vm;
use kvm::aarch64::Vcpu;

use super::rsi::{self, Arguments, Function};
use super::{HashAlgorithm, NotPrivate, Realm, RealmConfig, RealmVcpu};
use crate::convert::Pages;
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
        let config = RealmConfig {
            ipa_bits,
            hash: HashAlgorithm::Sha256,
            personalization: [0; 64],
        };
        Ok(Self(Arc::new(Realm::new(config, pages))))
    }

    /// Measures what was loaded.
    ///
    /// # Errors
    /// When `range` is not all memory of the VM.
    pub fn measure(&self, range: PageRange<Gpa>) -> Result<(), NotPrivate> {
        self.0.measure(range)
    }

    /// Measures `content` as what was loaded into `range`.
    pub fn measure_content(&self, range: PageRange<Gpa>, content: &[u8]) {
        self.0.measure_content(range, content);
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
                "the guest calls {id:#x}, which RSI 1.0 does not have"
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
