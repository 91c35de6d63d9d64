//! A Realm of Arm CCA: the RMM keeps its private memory, and answers its guest's RSI calls.
//!
//! ```text
//!   launch   Realm ─► (memory, vCPUs, interrupt controller, files) ─► LoadedRealm ─► Conversions
//!            configured                                               populated      active
//!
//!   run      guest ─ RSI ─► RMM ─ RIPAS change ─► KVM ─ memory fault ─► Conversions ─► Pages
//!                            ▲                      │                                   │
//!                            └──── completed ◄──────┴────────── next KVM_RUN ◄──────────┘
//! ```
//! What differs from the emulated Realm: nobody here sees a private page, the RSI calls never arrive,
//! and KVM takes the shared bit off every address before it tells. docs/platforms/cca.md has the rest.

mod conversions;
mod regions;

use iommu::{Gpa, PageRange};
use kvm::cca::{Configured, RealmAbi, RealmParameters, Unmeasured};
use kvm::ram::GuestRam;
use kvm::{Vcpu, Vm, VmKind};

use crate::convert::Pages;

pub use conversions::Conversions;
pub use regions::regions;

/// KVM or the RMM refuse something on the way to a running Realm.
#[derive(Debug, thiserror::Error)]
#[error("a Realm cannot be launched by the {form} of the kernel's interface")]
pub struct Refused {
    /// By which form of the interface.
    pub form: RealmAbi,
    /// What, and why.
    #[source]
    pub source: kvm::Error,
}

impl Refused {
    /// For `map_err`: by this form.
    fn by(form: RealmAbi) -> impl Fn(kvm::Error) -> Self {
        move |source| Self { form, source }
    }
}

/// A Realm without content.
pub struct Realm {
    form: RealmAbi,
    configured: Configured,
}

impl Realm {
    /// The kind of VM that is a Realm here, in a space of `ipa_bits` bits.
    ///
    /// # Errors
    /// What the host lacks.
    pub fn kind(ipa_bits: u8) -> Result<VmKind, kvm::cca::RealmLack> {
        kvm::cca::find(ipa_bits).map(VmKind::Realm)
    }

    /// Gives the Realm `vm`, of this `form`, its parameters, before it has anything.
    ///
    /// # Errors
    /// When KVM or the RMM refuse.
    pub fn new(vm: &Vm, form: RealmAbi) -> Result<Self, Refused> {
        let parameters = RealmParameters {
            hash: kvm::cca::RealmHash::Sha256,
            personalization: None,
        };
        let configured = Configured::new(vm, &parameters).map_err(Refused::by(form))?;
        Ok(Self { form, configured })
    }

    /// Makes what was loaded into the shared form of `ram` its measured initial content: `loaded`,
    /// which [`regions()`] has cut. After its vCPUs and its interrupt controller.
    ///
    /// # Errors
    /// When KVM or the RMM refuse.
    pub fn load(
        self,
        dram: &[PageRange<Gpa>],
        ram: &GuestRam,
        loaded: Vec<PageRange<Gpa>>,
    ) -> Result<LoadedRealm, Refused> {
        let Self { form, configured } = self;
        let refused = Refused::by(form);
        let unmeasured = configured.build(dram).map_err(&refused)?;
        for &range in &loaded {
            unmeasured.populate(ram, range).map_err(&refused)?;
        }
        Ok(LoadedRealm {
            form,
            unmeasured,
            loaded,
        })
    }
}

/// A Realm with its content, and registers that can be set.
pub struct LoadedRealm {
    form: RealmAbi,
    unmeasured: Unmeasured,
    loaded: Vec<PageRange<Gpa>>,
}

impl LoadedRealm {
    /// Ends the measurement. After the registers of all its `vcpus` are set.
    ///
    /// # Errors
    /// When KVM or the RMM refuse.
    pub fn activate(
        self,
        vcpus: &[Vcpu],
        pages: std::sync::Arc<Pages>,
        shared_bit: Option<u8>,
    ) -> Result<Conversions, Refused> {
        let refused = Refused::by(self.form);
        // The RMM takes them by ascending affinities.
        for vcpu in vcpus {
            vcpu.finalize().map_err(&refused)?;
        }
        self.unmeasured.activate().map_err(&refused)?;
        Ok(Conversions::new(pages, shared_bit, self.loaded))
    }
}
