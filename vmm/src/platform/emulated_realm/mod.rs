//! An ordinary arm64 VM that answers as a Realm would, so that an unmodified guest kernel takes its
//! confidential-computing paths. **It gives no confidentiality**: the host sees everything.
//!
//! ```text
//!   guest ── SMC 0xC4000190.. ──► KVM's SMCCC filter ──► vCPU exit ──► Realm::call
//!                                                                        │
//!                      state of pages, private memory: RealmMemory ◄─────┘
//! ```
//!
//! [`Realm`] plays the RMM (Arm DEN0137, version 1.0) towards the guest. It knows neither KVM nor how
//! pages are converted; [`RealmMemory`] does. Errors are the ones that an RMM gives: checked against
//! the source of TF-RMM, function by function.

pub mod cmdline;
mod config;
mod host_call;
mod measurement;
mod rhi;
mod ripas;
pub mod rsi;
#[cfg(test)]
mod tests;
mod token;
mod vdev;
#[cfg(target_arch = "aarch64")]
mod vm;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use devices::pci::Bdf;
use devices::rate_limit::RateLimit;
use iommu::{Gpa, PageRange};

pub use config::RealmConfig;
pub use measurement::MeasureError;
use measurement::Measurements;
pub use ripas::{Response, Ripas, RipasChange, RipasProgress};
use rsi::{Arguments, Function, Reply};
use token::{Attester, TokenState};
pub use vdev::{RealmDevices, Vdev, VdevError, VdevTarget};
#[cfg(target_arch = "aarch64")]
pub use vm::RealmVm;

static DEVICE_REFUSALS: RateLimit = RateLimit::per_second(5);

/// Guest memory as the RMM sees it. Each call is one step that no conversion can divide.
pub trait RealmMemory {
    /// The state of the first page of `range`, and the end of the run of that state in `range`.
    fn ripas(&self, range: PageRange<Gpa>) -> (Gpa, Ripas);

    /// Changes the state of as much of `range`, from its start, as one call should.
    fn set_ripas(&self, range: PageRange<Gpa>, change: RipasChange) -> RipasProgress;

    /// Copies private memory out.
    ///
    /// # Errors
    /// When a byte of it is not private memory.
    fn read_private(&self, at: Gpa, bytes: &mut [u8]) -> Result<(), NotPrivate>;

    /// Copies into private memory.
    ///
    /// # Errors
    /// When a byte of it is not private memory.
    fn write_private(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotPrivate>;

    /// Copies into shared memory, named without the shared bit.
    ///
    /// # Errors
    /// When a byte of it is not shared memory.
    fn write_shared(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotShared>;
}

impl<M: RealmMemory> RealmMemory for Arc<M> {
    fn ripas(&self, range: PageRange<Gpa>) -> (Gpa, Ripas) {
        (**self).ripas(range)
    }
    fn set_ripas(&self, range: PageRange<Gpa>, change: RipasChange) -> RipasProgress {
        (**self).set_ripas(range, change)
    }
    fn read_private(&self, at: Gpa, bytes: &mut [u8]) -> Result<(), NotPrivate> {
        (**self).read_private(at, bytes)
    }
    fn write_private(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotPrivate> {
        (**self).write_private(at, bytes)
    }
    fn write_shared(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotShared> {
        (**self).write_shared(at, bytes)
    }
}

/// The memory is not private guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not all of it is private memory of the VM")]
pub struct NotPrivate;

/// The memory is not shared guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not all of it is shared memory of the VM")]
pub struct NotShared;

/// One emulated Realm.
pub struct Realm<M> {
    config: RealmConfig,
    measurements: Mutex<Measurements>,
    /// Made when the first token is asked for: few guests ask.
    attester: OnceLock<Option<Attester>>,
    memory: M,
    /// Set before its vCPUs start, if it has any.
    devices: OnceLock<Arc<dyn RealmDevices>>,
}

/// What the interface keeps for each vCPU.
#[derive(Default)]
pub struct RealmVcpu {
    token: TokenState,
}

impl<M: RealmMemory> Realm<M> {
    /// A Realm of which nothing has been loaded yet.
    pub fn new(config: RealmConfig, memory: M) -> Self {
        Self {
            measurements: Mutex::new(Measurements::new(&config)),
            attester: OnceLock::new(),
            config,
            memory,
            devices: OnceLock::new(),
        }
    }

    /// Gives it assigned devices, once: from now on it has the calls for them.
    pub fn assign(&self, devices: Arc<dyn RealmDevices>) {
        let _given_before = self.devices.set(devices);
    }

    /// Its memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Answers the call of function `id` that a vCPU has made. Arguments beyond
    /// [`Function::argument_count`] are not looked at.
    pub fn call(&self, vcpu: &mut RealmVcpu, id: u32, arguments: &Arguments) -> Reply {
        let function = Function::from_id(id);
        let there = |function: &Function| !function.is_for_devices() || self.devices().is_some();
        let Some(function) = function.filter(there) else {
            return Reply::NOT_SUPPORTED;
        };
        match function {
            Function::Version => version(arguments),
            Function::Features => self.features(arguments),
            Function::MeasurementRead => self.measurement_read(arguments),
            Function::MeasurementExtend => self.measurement_extend(arguments),
            Function::AttestationTokenInit => self.token_init(&mut vcpu.token, arguments),
            Function::AttestationTokenContinue => self.token_continue(&mut vcpu.token, arguments),
            Function::RealmConfig => self.realm_config(arguments),
            Function::IpaStateSet => self.ipa_state_set(arguments),
            Function::IpaStateGet => self.ipa_state_get(arguments),
            Function::HostCall => self.host_call(arguments),
            Function::VdevGetInfo => self.vdev_get_info(arguments),
            Function::VdevDmaEnable => self.vdev_dma_enable(arguments),
            Function::VdevDmaDisable => self.vdev_dma_disable(arguments),
            Function::VdevValidateMapping => self.vdev_validate_mapping(arguments),
        }
    }

    fn devices(&self) -> Option<&dyn RealmDevices> {
        self.devices.get().map(AsRef::as_ref)
    }

    /// x1: which register. Register 0 tells of device assignment by its lowest bit, and of nothing
    /// else; all others read zero.
    fn features(&self, arguments: &Arguments) -> Reply {
        let assigned = arguments[0] == 0 && self.devices().is_some();
        Reply::success([u64::from(assigned)])
    }

    /// Whether `gpa` is in the protected half, where a guest's private memory is.
    fn is_protected(&self, gpa: Gpa) -> bool {
        let half = self.config.ipa_bits.saturating_sub(1);
        gpa.raw().checked_shr(half.into()).unwrap_or(0) == 0
    }

    fn measurements(&self) -> MutexGuard<'_, Measurements> {
        // A measurement is replaced whole, so a panic elsewhere leaves no half of one.
        self.measurements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// x1: the version that the guest asks for; returns the lowest and the highest that it could use.
fn version(arguments: &Arguments) -> Reply {
    let offered = [rsi::VERSION, rsi::VERSION];
    if arguments[0] == rsi::VERSION {
        Reply::success(offered)
    } else {
        Reply::failure(rsi::Failure::Input, offered)
    }
}

/// Logs, at a bounded rate, why a device did not do what its guest asked for.
fn device_refuses(device: Bdf, error: &(dyn std::error::Error + 'static)) {
    if let Some(skipped) = DEVICE_REFUSALS.permit() {
        tracing::warn!(%device, skipped, "the guest's call fails: {error}");
    }
}
