//! The page states of a guest whose processor encrypts its memory (SEV-SNP, TDX): what the guest asks for
//! by a call, and what it asks for by an access.
//!
//! ```text
//!   SNP: page state change (GHCB) ──┐
//!   TDX: TDVMCALL<MapGPA> ──────────┴─► KVM ─► KVM_HC_MAP_GPA_RANGE ─► Pages: tables, attribute, memory
//!   access to the form that a page is not in ─► KVM_EXIT_MEMORY_FAULT ─►       │
//!                                                                              ▼
//!   guest ◄─ accepts the page (PVALIDATE, TDG.MEM.PAGE.ACCEPT) ◄─ next KVM_RUN ┘
//! ```
//! A page that becomes private leaves the DMA tables before KVM hears of it: on hardware a device that
//! still reached it would bring the host down (TDX: machine check) or find the IOMMU in its way (SNP).
//! The guest is not deceived by a host that converts at the wrong time: it has not accepted the page.

use std::sync::Arc;

use iommu::{Gpa, PageRange, Visibility};
use kvm::Fault;
use kvm::sw_protected::MAP_GPA_RANGE;

use super::faults::{self, Copies};
use super::map_gpa_range::{self, Request};
use super::page_exits::{LastFault, PageExitError, PageExits, changes};
use crate::convert::Pages;

/// Converts pages for the vCPUs of such a guest.
pub struct EncryptedPages {
    pages: Arc<Pages>,
    /// Memory that is no DRAM and stays private: the firmware.
    fixed: Option<PageRange<Gpa>>,
    copies: Copies,
}

impl EncryptedPages {
    /// For a guest whose launch is finished, and whose content was copied from `loaded`.
    #[must_use]
    pub fn new(
        pages: Arc<Pages>,
        fixed: Option<PageRange<Gpa>>,
        loaded: Vec<PageRange<Gpa>>,
    ) -> Self {
        Self {
            pages,
            fixed,
            copies: Copies::new(loaded),
        }
    }

    /// Whether `range` is where only devices are: shared for good, and so for a guest that says so.
    fn is_no_memory(&self, range: PageRange<Gpa>) -> bool {
        let space = self.pages.space();
        let mut dram = space.states().dram().iter().chain(&self.fixed);
        dram.all(|dram| dram.intersection(range).is_none())
    }

    /// What a call is answered by, `KVM_EINVAL` and the like without a sign.
    fn answer(&self, arguments: [u64; 4]) -> i64 {
        if let Ok(Request { range, to }) = Request::parse(arguments)
            && to == Visibility::Shared
            && self.is_no_memory(range)
        {
            return 0;
        }
        self.copies.free(&self.pages);
        // KVM tells the guest in the terms of its platform, and knows errors by positive numbers here.
        map_gpa_range::answer(&self.pages, arguments).saturating_neg()
    }
}

impl PageExits for EncryptedPages {
    fn memory_fault(&self, fault: Fault, last: &mut LastFault) -> Result<(), PageExitError> {
        faults::follow(fault, 0, &self.pages, &self.copies)?;
        // The same again, with no page converted since: it is in the form that the access means, or no memory
        // at all, and KVM cannot give it. To go on would be to go round.
        match last.repeats(fault, changes(&self.pages)) {
            false => Ok(()),
            true => Err(PageExitError::Lost(fault.at)),
        }
    }

    fn hypercall(&self, function: u64, arguments: [u64; 4]) -> Option<i64> {
        (function == MAP_GPA_RANGE).then(|| self.answer(arguments))
    }
}
