//! A trust domain of Intel TDX: the TDX module keeps its memory and its registers, and measures what it starts
//! from. docs/platforms/tdx.md has the rest.
//!
//! ```text
//!   Td ─► (local APICs, memory, vCPUs, files) ─► LoadedTd ─► EncryptedPages
//!   INIT_VM           GET_CPUID, INIT_VCPU       INIT_MEM_REGION   FINALIZE_VM
//! ```
//! It starts in its firmware, which accepts memory and starts the kernel that is loaded with it.

use std::sync::Arc;

use iommu::{Gpa, PageRange};
use kvm::ram::GuestRam;
use kvm::tdx::{Gpaw, Initialized, Measure};
use kvm::x86_64::Cpuid;
use kvm::{Vcpu, Vm};

use super::encrypted_pages::EncryptedPages;
use crate::boot::firmware::tdvf::Section;
use crate::convert::Pages;

/// A TD without content.
pub struct Td(Initialized);

impl Td {
    /// Makes `vm`, which has nothing yet, a TD whose guest-physical addresses have `bits` bits: 48 or 52.
    ///
    /// # Errors
    /// When KVM or the TDX module refuse, or there is no such width.
    pub fn new(vm: &Vm, bits: u8) -> Result<Self, kvm::Error> {
        let gpaw = Gpaw::of(bits).ok_or(kvm::Error::Missing("TD of this address width"))?;
        let supported = Cpuid::supported(vm)?;
        Initialized::new(vm, gpaw, &supported).map(Self)
    }

    /// Makes `sections`, in this order, what the TD starts from; copies come from the shared form of `ram`.
    /// By `boot`, its first vCPU.
    ///
    /// # Errors
    /// When KVM or the TDX module refuse.
    pub fn load(
        self,
        boot: &Vcpu,
        ram: &GuestRam,
        sections: &[&Section],
    ) -> Result<LoadedTd, kvm::Error> {
        for section in sections {
            let measure = match section.measured {
                true => Measure::Content,
                false => Measure::Presence,
            };
            boot.load_td(ram, section.range, measure)?;
        }
        Ok(LoadedTd {
            td: self.0,
            copied: sections.iter().map(|section| section.range).collect(),
        })
    }
}

/// A TD with its content.
pub struct LoadedTd {
    td: Initialized,
    copied: Vec<PageRange<Gpa>>,
}

impl LoadedTd {
    /// Ends the measurement. `firmware` stays private for good.
    ///
    /// # Errors
    /// When KVM or the TDX module refuse.
    pub fn finalize(
        self,
        pages: Arc<Pages>,
        firmware: Option<PageRange<Gpa>>,
    ) -> Result<EncryptedPages, kvm::Error> {
        self.td.finalize()?;
        Ok(EncryptedPages::new(pages, firmware, self.copied))
    }
}
