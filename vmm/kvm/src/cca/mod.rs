//! Realms of Arm CCA, as the kernel series that were posted make them.
//!
//! No released kernel has the interface, and its capability number was given to others meanwhile. It
//! has had two forms of calls, the later with two VM types and two ways to keep the state of pages;
//! [`RealmAbi`] names them, [`find()`] tells them apart by what the kernel does.
//!
//! ```text
//!               RealmAbi::EnableCap (v7)               RealmAbi::Populate (v14), EarlyPopulate (v13)
//!  VM type      1 << 8 | IPA bits                      1 << 30 | IPA bits (v13: as v7)
//!  configure    ENABLE_CAP: hash, personalization      -
//!               guest_memfd, memory slot, attributes: the same for both (`private`), without attributes
//!               in RealmAbi::PrivateFiles (v15), which is as v14 in all else
//!               interrupt controller at plain addresses, vCPUs (v7: with feature 8)
//!  build        ENABLE_CAP: create, then RAM           by the first populate
//!  populate     ENABLE_CAP: from the slot's memory     ioctl 0xd7, with its progress
//!               pc and x0 of the first vCPU
//!  finalize     each vCPU: KVM_ARM_VCPU_FINALIZE(8)    -
//!  activate     ENABLE_CAP                             by the first KVM_RUN
//! ```
//! A step is a type that the next one consumes: [`Configured`] ─► [`Unmeasured`] ─► active. Everything
//! here builds on every architecture, so that the calls can be checked on any; only arm64 has Realms.

mod enable_cap;
mod find;
mod populate;
mod private_files;

use std::fmt;

use iommu::{Gpa, PageRange};

use crate::ram::GuestRam;
use crate::{Error, Vm, VmKind};

pub use find::{RealmLack, find};

/// A form of the kernel's interface for Realms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealmAbi {
    /// Sub-commands of `KVM_ENABLE_CAP`, capability 300 and vCPU feature 8: series v6 and v7.
    EnableCap,
    /// `KVM_ARM_RMI_POPULATE`, and the rest without a word, in a VM of the first form's type: series v13.
    EarlyPopulate,
    /// The same in a VM of a type of its own: series v14.
    Populate,
    /// As [`Self::Populate`], and nobody is told the state of a page: series v15.
    PrivateFiles,
}

impl fmt::Display for RealmAbi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EnableCap => "form of series v7",
            Self::EarlyPopulate => "form of series v13",
            Self::Populate => "form of series v14",
            Self::PrivateFiles => "form of series v15",
        })
    }
}

impl RealmAbi {
    /// The argument of `KVM_CREATE_VM` for a Realm of `ipa_bits` bits.
    pub(crate) const fn vm_type(self, ipa_bits: u8) -> u64 {
        match self {
            Self::EnableCap | Self::EarlyPopulate => 1 << 8 | ipa_bits as u64,
            Self::Populate | Self::PrivateFiles => 1 << 30 | ipa_bits as u64,
        }
    }

    /// Whether KVM is told which form of a page is in force, by `KVM_SET_MEMORY_ATTRIBUTES`.
    pub(crate) const fn is_told_states(self) -> bool {
        match self {
            Self::EnableCap | Self::EarlyPopulate | Self::Populate => true,
            Self::PrivateFiles => false,
        }
    }
}

/// How the RMM measures a Realm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RealmHash {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// What is set of a Realm before it is there; all of it goes into its measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealmParameters {
    /// How the RMM measures it.
    pub hash: RealmHash,
    /// The personalization value that its attestation token repeats.
    pub personalization: Option<[u8; 64]>,
}

/// A Realm that has its parameters, and nothing else yet.
pub struct Configured {
    vm: Vm,
    abi: RealmAbi,
}

impl Configured {
    /// Gives the Realm `vm` its parameters.
    ///
    /// # Errors
    /// When `vm` is no Realm, KVM or the RMM refuse a parameter, or this form of the interface has no
    /// way to set it.
    pub fn new(vm: &Vm, parameters: &RealmParameters) -> Result<Self, Error> {
        let VmKind::Realm(abi) = vm.kind() else {
            return Err(Error::Missing("Realm in a VM of another kind"));
        };
        match abi {
            RealmAbi::EnableCap => enable_cap::configure(vm, parameters)?,
            RealmAbi::EarlyPopulate | RealmAbi::Populate | RealmAbi::PrivateFiles => {
                populate::configure(parameters)?;
            }
        }
        Ok(Self {
            vm: vm.clone(),
            abi,
        })
    }

    /// Has the RMM make the Realm, with RAM at `dram`. After its memory slots, its interrupt
    /// controller and its vCPUs.
    ///
    /// # Errors
    /// When KVM or the RMM refuse.
    pub fn build(self, dram: &[PageRange<Gpa>]) -> Result<Unmeasured, Error> {
        if self.abi == RealmAbi::EnableCap {
            enable_cap::build(&self.vm, dram)?;
        }
        Ok(Unmeasured {
            vm: self.vm,
            abi: self.abi,
        })
    }
}

/// A Realm that takes its initial content and measures it.
pub struct Unmeasured {
    vm: Vm,
    abi: RealmAbi,
}

impl Unmeasured {
    /// Copies `range` out of the shared form of `ram` into private memory, and measures it.
    ///
    /// # Errors
    /// When the range is not within one DRAM range, was populated before, or KVM or the RMM refuse.
    pub fn populate(&self, ram: &GuestRam, range: PageRange<Gpa>) -> Result<(), Error> {
        let source = ram.dma_address(range).ok_or(Error::Misaligned {
            at: range.start().into(),
            bytes: range.bytes(),
        })?;
        match self.abi {
            RealmAbi::EnableCap => enable_cap::populate(&self.vm, range),
            RealmAbi::EarlyPopulate | RealmAbi::Populate | RealmAbi::PrivateFiles => {
                populate::populate(&self.vm, range, source)
            }
        }
    }

    /// Ends the measurement: from here on the Realm can run. After the registers of its vCPUs, which
    /// are measured, and `Vcpu::finalize` of each.
    ///
    /// # Errors
    /// When KVM or the RMM refuse.
    pub fn activate(self) -> Result<(), Error> {
        match self.abi {
            RealmAbi::EnableCap => enable_cap::activate(&self.vm),
            RealmAbi::EarlyPopulate | RealmAbi::Populate | RealmAbi::PrivateFiles => Ok(()),
        }
    }
}
