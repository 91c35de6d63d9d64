//! What a platform makes of the exits that are about its guest's pages.

use kvm::{Fault, Ipa};

use crate::convert::{Pages, Unconverted};

/// The part of a platform that vCPUs meet while they run. Shared between all of them.
pub trait PageExits: Send + Sync {
    /// KVM cannot give a vCPU the pages of `fault`. Once this has returned the vCPU may run on, and tries
    /// again. `last` is what this has left of the last fault of the same vCPU.
    ///
    /// # Errors
    /// When the vCPU must not run on.
    fn memory_fault(&self, fault: Fault, last: &mut LastFault) -> Result<(), PageExitError>;

    /// The guest calls KVM's `function`, a `KVM_HC_*`. Returns what it finds in its register, a number or
    /// minus an error number; `None` when the platform has no such call.
    fn hypercall(&self, function: u64, arguments: [u64; 4]) -> Option<i64> {
        let _ = (function, arguments);
        None
    }
}

/// What a platform remembers of a vCPU's last memory fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastFault {
    seen: Option<(Fault, u64)>,
    /// How often it has come over again.
    times: u32,
}

impl LastFault {
    /// Notes a fault with how many changes of page states there have been. Returns whether it is the last
    /// one over again, with no change since.
    pub fn repeats(&mut self, fault: Fault, changes: u64) -> bool {
        let now = Some((fault, changes));
        let again = std::mem::replace(&mut self.seen, now) == now;
        self.times = match again {
            true => self.times.saturating_add(1),
            false => 0,
        };
        again
    }

    /// How often the last fault has come over again, with no change since it came first.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.times
    }
}

/// How many changes of page states there have been, those included that damaged something.
pub(super) fn changes(pages: &Pages) -> u64 {
    let so_far = pages.statistics();
    let changes = [
        so_far.to_shared.extents,
        so_far.to_private.extents,
        so_far.damaged,
    ];
    changes.into_iter().fold(0, u64::wrapping_add)
}

/// Why a vCPU cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PageExitError {
    /// KVM names no pages.
    #[error("KVM names {bytes:#x} bytes at {at}, which are no pages, in a memory fault")]
    NoPages {
        /// The address that it names.
        at: Ipa,
        /// The length.
        bytes: u64,
    },
    /// The host did not do all that belongs to a conversion.
    #[error(transparent)]
    Unconverted(#[from] Unconverted),
    /// KVM does not go on though everything is as it asks.
    #[error(
        "KVM goes on asking for {bytes:#x} bytes at {at} to be what they are: it counts the state of pages by \
         another way than ccvm tells it, or has no memory for them"
    )]
    Stuck {
        /// The address that it names.
        at: Ipa,
        /// The length.
        bytes: u64,
    },
    /// The host has no memory for a page.
    #[error("the host cannot provide guest memory at {0}")]
    Lost(Ipa),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_repeats_when_nothing_has_changed_since_it() {
        let fault = |at| Fault {
            at: Ipa::new(at),
            bytes: 0x1000,
            private: true,
        };
        let mut last = LastFault::default();
        assert!(!last.repeats(fault(0), 0));
        assert!(last.repeats(fault(0), 0));
        assert!(!last.repeats(fault(0), 1), "a conversion came in between");
        assert!(!last.repeats(fault(0x1000), 1), "another page");
        assert!(!last.repeats(fault(0), 1));
    }

    #[test]
    fn repetitions_are_counted_until_something_else_comes() {
        let fault = Fault {
            at: Ipa::new(0),
            bytes: 0x1000,
            private: false,
        };
        let mut last = LastFault::default();
        for times in 0..3 {
            last.repeats(fault, 0);
            assert_eq!(last.times(), times);
        }
        last.repeats(fault, 1);
        assert_eq!(last.times(), 0);
    }
}
