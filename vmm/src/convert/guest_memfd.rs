//! Conversions of pages whose private form is in guest_memfd, where KVM knows which form is in force.
//!
//! ```text
//!   DMA tables lose it ─► KVM_SET_MEMORY_ATTRIBUTES ─► hole in the old form's file ─► DMA tables gain it
//! ```
//! A Realm of series v15 goes without the second step: nobody is told there.

#[cfg(test)]
mod tests;

use iommu::{Alias, Gpa, HostError, PageFlip, PageRange, SharedBit, Visibility};
use kvm::ram::{GuestRam, SharedForm};
use kvm::{Vm, VmKind};

use super::{Pages, PagesError};
use crate::plan::VmPlan;
use crate::platform::emulated_realm::Response;

/// The host did not convert all that it had to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host cannot make {range} {to}: it stopped at {at}")]
pub struct Unconverted {
    /// What was to change.
    pub range: PageRange<Gpa>,
    /// Its new state.
    pub to: Visibility,
    /// The first page that is not in it.
    pub at: Gpa,
}

/// The bits by which devices name shared pages, where there are any.
#[derive(Clone, Copy)]
struct Names {
    /// Of those that are not accepted.
    shared: Option<u8>,
    /// Of those that are.
    accepted: Option<u8>,
}

impl Pages {
    /// The memory of a planned VM of a kind that has private memory in KVM, all of it as the kind starts.
    /// `fixed` is memory besides DRAM that never changes its state, and that no device reaches.
    ///
    /// # Errors
    /// When the host has no room, or KVM no private memory for `vm`.
    pub fn in_guest_memfd(
        plan: &VmPlan,
        vm: &Vm,
        fixed: Option<PageRange<Gpa>>,
    ) -> Result<Self, PagesError> {
        let mut ranges: Vec<PageRange<Gpa>> = plan.dram().iter().copied().chain(fixed).collect();
        ranges.sort_by_key(|range| range.start());
        let names = Names {
            shared: plan.shared_bit(),
            accepted: plan.accepted_shared_bit(),
        };
        Self::of_ranges(&ranges, plan.dram(), names, vm)
    }

    #[cfg(test)]
    pub(crate) fn in_guest_memfd_with(
        dram: &[PageRange<Gpa>],
        shared_bit: Option<u8>,
        vm: &Vm,
    ) -> Result<Self, PagesError> {
        let names = Names {
            shared: shared_bit,
            accepted: shared_bit,
        };
        Self::of_ranges(dram, dram, names, vm)
    }

    fn of_ranges(
        ranges: &[PageRange<Gpa>],
        dram: &[PageRange<Gpa>],
        names: Names,
        vm: &Vm,
    ) -> Result<Self, PagesError> {
        let files = ranges.iter().map(|range| vm.guest_memfd(range.bytes()));
        let files = files.collect::<Result<Vec<_>, _>>();
        let shared = match vm.kind() {
            VmKind::Realm(_) => SharedForm::SmallPages,
            _ => SharedForm::Anonymous,
        };
        let ram = GuestRam::with_private(ranges, files.map_err(PagesError::Kvm)?, shared)?;
        let alias = Self::alias(names.shared);
        let mut pages = Self::of(ram, dram, vm.kind().initial_visibility(), alias)?;
        if alias == Alias::InPlace {
            // VFIO maps nothing from a guest_memfd, and what the host maps at these names is the shared form.
            pages.space().leave_out_private_pages();
            if let Some(bit) = names.accepted.and_then(SharedBit::new) {
                let named = pages.space().name_accepted_by(bit);
                named.map_err(PagesError::Space)?;
            }
        }
        pages.vm = Some(vm.clone());
        pages.converts = true;
        Ok(pages)
    }

    /// Converts all DRAM in `range`. Returns how many pages of it are DRAM.
    ///
    /// # Errors
    /// When the host does not follow; the pages before are converted.
    pub fn convert_all(&self, range: PageRange<Gpa>, to: Visibility) -> Result<u64, Unconverted> {
        let mut pages: u64 = 0;
        for dram in self.dram_in(range) {
            let mut at = dram.start();
            // Each round converts some extents, or is the last: there are no more rounds than extents.
            while let Ok(rest) = PageRange::from_bounds(at, dram.end()) {
                let progress = self.convert(rest, to);
                at = progress.reached;
                if progress.response == Response::Reject || at <= rest.start() {
                    return Err(Unconverted { range, to, at });
                }
            }
            pages = pages.saturating_add(dram.pages());
        }
        Ok(pages)
    }

    /// The parts of `range` that are DRAM, ascending.
    fn dram_in(&self, range: PageRange<Gpa>) -> Vec<PageRange<Gpa>> {
        let space = self.space();
        let dram = space.states().dram().iter();
        dram.filter_map(|dram| dram.intersection(range)).collect()
    }
}

/// The memory side of such a conversion.
pub(super) struct Attributes<'a> {
    pub(super) vm: &'a Vm,
    pub(super) ram: &'a GuestRam,
}

impl PageFlip for Attributes<'_> {
    fn flip(&mut self, range: PageRange<Gpa>, to: Visibility) -> Result<(), HostError> {
        let flipped = self.vm.set_visibility(range, to);
        flipped.map_err(|error| HostError::without_effect("KVM_SET_MEMORY_ATTRIBUTES", error))
    }

    fn discard(&mut self, range: PageRange<Gpa>, old: Visibility) -> Result<(), HostError> {
        let freed = self.ram.discard(range, old);
        freed.map_err(|error| {
            HostError::with_unknown_effect("fallocate or madvise of guest memory", error)
        })
    }
}
