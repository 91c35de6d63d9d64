//! A Realm that another vCPU has turned off.
//!
//! The RMM stops running it before KVM has told anybody: for a moment, a vCPU can neither go on nor knows
//! why. The one that asked for the end returns with it.

use std::thread;
use std::time::Duration;

use crate::run::Ending;

/// How long a vCPU is out of the way of the one that reports the end.
const WAIT: Duration = Duration::from_millis(1);

/// How often it waits: what has not been reported after some ten seconds will not be.
const MOST_WAITS: u32 = 10_000;

/// How often in a row a vCPU has found its Realm turned off.
#[derive(Debug, Default)]
pub struct RealmOff(u32);

impl RealmOff {
    /// The vCPU has run.
    pub(super) const fn runs(&mut self) {
        self.0 = 0;
    }

    /// The vCPU has not run: waits a moment. Returns how the run ends when that was in vain too often.
    pub(super) fn wait(&mut self) -> Option<Ending> {
        self.0 = self.0.saturating_add(1);
        if self.0 > MOST_WAITS {
            let why = "the RMM does not run the Realm any more, and no vCPU has turned it off";
            return Some(Ending::Failed(why.to_owned()));
        }
        thread::sleep(WAIT);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_that_has_run_waits_anew() {
        let mut off = RealmOff(MOST_WAITS);
        off.runs();
        assert_eq!(off.wait(), None);
    }

    #[test]
    fn a_realm_that_nobody_has_turned_off_has_failed() {
        let mut off = RealmOff(MOST_WAITS - 1);
        assert_eq!(off.wait(), None);
        assert!(matches!(off.wait(), Some(Ending::Failed(_))));
    }
}
