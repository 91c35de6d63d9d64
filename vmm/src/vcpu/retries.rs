//! A vCPU that KVM gave up, and may run next time.
//!
//! *An event on x86-64.* KVM gives up where an instruction wants a device while an event is on its way to the
//! guest. On AMD processors it takes for one on its way what the processor remembers of one that *has arrived*,
//! too: `svm_check_emulate_instruction()` (Linux 7.3, `arch/x86/kvm/svm/svm.c`) looks at the event's type and not at
//! whether it is valid. An emulated processor remembers that, so an exception that KVM delivered and then, before
//! anything else stops the vCPU, the first access to a page of devices end here. Run once more, such a vCPU does
//! its access; one that really cannot be given its event fails in the same place at once.
//!
//! *A page of a Realm.* Two vCPUs that touch two new pages of one block at the same time want one table from
//! the RMM. KVM's series v7 takes the second for a failure: it expects to hear that there is a table at the
//! level of the new one, and the RMM (1.0) names the level above (`realm_create_rtt_levels()` in
//! `arch/arm64/kvm/rme.c`). Run once more, such a vCPU touches its page again, and finds the table. It need
//! not come back from KVM between one such page and the next. Kernels with the calls of later series on what
//! was KVM's code in v7 do the same; the later series look at the right level.

use kvm::GaveUp;

/// How often a Realm's vCPU is run again until it comes back for another reason.
const PAGES_IN_A_ROW: u32 = 100;

/// How often in a row KVM has given the vCPU up.
#[derive(Debug, Default)]
pub struct Retries(u32);

impl Retries {
    /// The vCPU has come to something else.
    pub(super) const fn runs(&mut self) {
        self.0 = 0;
    }

    /// KVM gave up, for the reason `why`. Returns whether to try again.
    pub(super) fn grant(&mut self, why: &GaveUp) -> bool {
        self.0 = self.0.saturating_add(1);
        let most = match why {
            GaveUp::Realm => PAGES_IN_A_ROW,
            why if why.is_undelivered_event() => 1,
            _ => 0,
        };
        self.0 <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNDELIVERED: GaveUp = GaveUp::Internal {
        kind: 3,
        datum: None,
    };

    #[test]
    fn an_event_is_tried_twice_and_not_a_third_time() {
        let mut retries = Retries::default();
        assert!(retries.grant(&UNDELIVERED));
        assert!(!retries.grant(&UNDELIVERED));
        retries.runs();
        assert!(retries.grant(&UNDELIVERED));
    }

    #[test]
    fn a_realm_is_run_again_unless_it_never_runs() {
        let mut retries = Retries::default();
        let granted = (0..1000).filter(|_| retries.grant(&GaveUp::Realm)).count();
        assert_eq!(granted, 100);
        retries.runs();
        assert!(retries.grant(&GaveUp::Realm));
    }

    #[test]
    fn nothing_else_is_tried_again() {
        assert!(!Retries::default().grant(&GaveUp::Entry(0)));
        let stopped = GaveUp::Internal {
            kind: 4,
            datum: None,
        };
        assert!(!Retries::default().grant(&stopped));
    }
}
