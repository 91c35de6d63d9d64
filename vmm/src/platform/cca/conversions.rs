//! The page conversions that a Realm asks for: memory faults of KVM.
//!
//! A guest's RIPAS change stops its vCPU with the range and the state that it wants; the next `KVM_RUN`
//! completes the change, so everything that has to follow has followed by then. An access to the form
//! of a page that the page is not in stops it in the same way, and is taken for the same wish.
//!
//! A kernel of another series than it was taken for may never find its wish fulfilled. That ends the run: a
//! guest whose vCPU only stops and starts would else look as if it had hung.

use std::sync::Arc;

use iommu::{Gpa, PageRange};
use kvm::Fault;

use crate::convert::Pages;
use crate::platform::faults::{self, Copies};
use crate::platform::page_exits;
use crate::platform::{LastFault, PageExitError, PageExits};

/// How often a vCPU may stop for the same pages while no page of the guest changes. A guest may ask for what is
/// already so, and a fault may have been overtaken by another vCPU; neither goes on for long.
const MOST_REPETITIONS: u32 = 10_000;

/// Converts pages for the vCPUs of a Realm.
pub struct Conversions {
    pages: Arc<Pages>,
    shared_bit: u64,
    copies: Copies,
}

impl Conversions {
    /// For a Realm that has just been activated, whose content was loaded from `loaded`.
    pub(super) fn new(
        pages: Arc<Pages>,
        shared_bit: Option<u8>,
        loaded: Vec<PageRange<Gpa>>,
    ) -> Self {
        Self {
            pages,
            shared_bit: shared_bit.map_or(0, |bit| 1 << (bit & 63)),
            copies: Copies::new(loaded),
        }
    }
}

impl PageExits for Conversions {
    fn memory_fault(&self, fault: Fault, last: &mut LastFault) -> Result<(), PageExitError> {
        last.repeats(fault, page_exits::changes(&self.pages));
        if last.times() > MOST_REPETITIONS {
            let Fault { at, bytes, .. } = fault;
            return Err(PageExitError::Stuck { at, bytes });
        }
        faults::follow(fault, self.shared_bit, &self.pages, &self.copies)
    }
}

#[cfg(test)]
mod tests {
    use kvm::Ipa;

    use super::*;

    const DRAM: u64 = 0x4000_0000;
    const PAGE: u64 = 0x1000;

    fn fault(at: u64, private: bool) -> Fault {
        Fault {
            at: Ipa::new(at),
            bytes: PAGE,
            private,
        }
    }

    fn conversions() -> Conversions {
        let dram = [PageRange::new(Gpa::new(DRAM), 16 * PAGE).unwrap()];
        let pages = Arc::new(Pages::with_dram(&dram, Some(35)).unwrap());
        Conversions::new(pages, Some(35), Vec::new())
    }

    #[test]
    fn a_wish_that_kvm_never_finds_fulfilled_ends_the_run() {
        let conversions = conversions();
        let mut last = LastFault::default();
        let mut stop = |private| conversions.memory_fault(fault(DRAM, private), &mut last);
        for private in [true, false] {
            let mut stops = 0_u32;
            let error = loop {
                stops += 1;
                if let Err(error) = stop(private) {
                    break error;
                }
            };
            assert!(matches!(error, PageExitError::Stuck { .. }), "{error}");
            assert!(error.to_string().contains("0x40000000"), "{error}");
            // The first comes before its own change.
            assert_eq!(stops, MOST_REPETITIONS + 2 + u32::from(!private));
        }
    }

    #[test]
    fn a_page_that_goes_to_and_fro_may_do_so_for_ever() {
        let conversions = conversions();
        let (mut first, mut second) = (LastFault::default(), LastFault::default());
        for _ in 0..MOST_REPETITIONS + 3 {
            let shared = fault(DRAM, false);
            conversions.memory_fault(shared, &mut first).unwrap();
            let private = fault(DRAM, true);
            conversions.memory_fault(private, &mut second).unwrap();
        }
    }
}
