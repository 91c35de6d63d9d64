//! Which form of the interface the kernel has: told by what it does, never by a capability's number.
//!
//! ```text
//!   KVM_CREATE_VM(type) ─► guest_memfd ─► KVM_SET_MEMORY_ATTRIBUTES ─► form's own call
//!        │ refused            │ no             │ no                        │ unknown
//!        ▼                    ▼                ▼                           ▼
//!   next form          GuestMemfd      v15, PageStates, InPlace          Form
//! ```
//! v13 has the type of v7, so that the form's own call alone tells them apart; `private_files` tells v15
//! from what came after it. The VMs that this makes never run, and go at once.

use iommu::{Gpa, PageRange, Visibility};

use super::{RealmAbi, RealmHash, enable_cap, populate, private_files};
use crate::{Error, Vm, VmKind};

/// Why a host makes no Realms that ccvm could launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RealmLack {
    /// There are none on other processors.
    #[error("Realms are of arm64 processors")]
    Architecture,
    /// Neither VM type is known. Series from v13 on say so too where there is no RMM.
    #[error(
        "its KVM does not know the VM type of a Realm (1 << 30, or 1 << 8 before it): the kernel \
         lacks the CCA host series, or has one and found no RMM when it started"
    )]
    VmType,
    /// Realms of other widths are made.
    #[error(
        "its KVM makes Realms, but none of {0} address bits: the RMM has a limit of its own, which \
         KVM does not tell"
    )]
    Width(u8),
    /// A VM type is known, and there is nothing below to make Realms.
    #[error("its KVM knows Realms, but finds no RMM: the processor or the firmware lacks RME")]
    Rmm,
    /// No private memory.
    #[error("its KVM makes Realms, but no guest_memfd for their memory")]
    GuestMemfd,
    /// Nothing keeps the state of pages.
    #[error(
        "its KVM makes Realms, but refuses both KVM_SET_MEMORY_ATTRIBUTES and, for a guest_memfd, \
         KVM_SET_MEMORY_ATTRIBUTES2 (series v15): is gmem_in_place_conversion=0 set for the module kvm?"
    )]
    PageStates,
    /// The shared form of pages is in the guest_memfd as well, and nowhere else.
    #[error(
        "its KVM makes Realms, but takes their shared pages from guest_memfd and from no other memory \
         (in-place conversion, series after v15), which this ccvm does not use"
    )]
    InPlace,
    /// The VM type is known and what belongs to it is not.
    #[error(
        "its KVM makes VMs of this type, but does not have the calls by which ccvm fills a Realm \
         (series v6, v7 and v13 to v15)"
    )]
    Form,
}

/// Where a page of the VMs that only try things would be.
const TRIED_PAGE: u64 = 0x8000_0000;

/// A width that every kernel and RMM with Realms has had.
const USUAL_BITS: u8 = 40;

/// The form of the interface that this host has, for Realms of `ipa_bits` address bits.
///
/// # Errors
/// What is missing; of several forms, what the first one lacks whose VM type the kernel knows.
pub fn find(ipa_bits: u8) -> Result<RealmAbi, RealmLack> {
    match find_at(ipa_bits) {
        // An unknown type and an unknown width are refused by the same word.
        Err(RealmLack::VmType) if ipa_bits != USUAL_BITS => match find_at(USUAL_BITS) {
            Ok(_) => Err(RealmLack::Width(ipa_bits)),
            Err(lack) => Err(lack),
        },
        found => found,
    }
}

fn find_at(ipa_bits: u8) -> Result<RealmAbi, RealmLack> {
    let mut lack = RealmLack::VmType;
    for abi in [
        RealmAbi::Populate,
        RealmAbi::EnableCap,
        RealmAbi::EarlyPopulate,
        RealmAbi::PrivateFiles,
    ] {
        match tried(abi, ipa_bits) {
            Ok(()) => return Ok(abi),
            Err(RealmLack::VmType) => {}
            // The last form alone knows why KVM may not be told states.
            Err(other) if matches!(lack, RealmLack::VmType | RealmLack::PageStates) => lack = other,
            Err(_) => {}
        }
    }
    Err(lack)
}

fn tried(abi: RealmAbi, ipa_bits: u8) -> Result<(), RealmLack> {
    let vm = Vm::create(VmKind::Realm(abi), ipa_bits).map_err(|error| refusal(&error))?;
    let page = PageRange::new(Gpa::new(TRIED_PAGE), TRIED_BYTES).map_err(|_| RealmLack::Form)?;
    let has_calls: fn(&Vm) -> bool = match abi {
        RealmAbi::PrivateFiles => return private_files::find(&vm, page),
        RealmAbi::EnableCap => |vm| enable_cap::choose_hash(vm, RealmHash::Sha256).is_ok(),
        RealmAbi::EarlyPopulate => populate::is_certain,
        RealmAbi::Populate => populate::is_known,
    };
    vm.guest_memfd(page.bytes())
        .map_err(|_| RealmLack::GuestMemfd)?;
    vm.set_visibility(page, Visibility::Private)
        .map_err(|_| RealmLack::PageStates)?;
    match has_calls(&vm) {
        true => Ok(()),
        false => Err(RealmLack::Form),
    }
}

/// Whole pages of any size that an arm64 host has: 64 KiB.
const TRIED_BYTES: u64 = 64 << 10;

/// What a refused `KVM_CREATE_VM` says: a kernel that knows the type and cannot serve it says so by
/// another error than one that does not.
fn refusal(error: &Error) -> RealmLack {
    let errno = match error {
        Error::Ioctl { source, .. } => source.raw_os_error(),
        _ => None,
    };
    match errno {
        Some(libc::EPERM | libc::ENODEV | libc::EOPNOTSUPP | libc::ENXIO) => RealmLack::Rmm,
        _ => RealmLack::VmType,
    }
}
