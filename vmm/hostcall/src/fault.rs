//! Which call is made to fail.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether there is anything to do at the gate: most runs are not armed.
static ARMED: AtomicBool = AtomicBool::new(false);
static GATE: Mutex<Gate> = Mutex::new(Gate {
    mode: Mode::List,
    passed: BTreeMap::new(),
});

/// What the gate does to calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Logs each call with its number.
    List,
    /// Makes one fail.
    Fail(Fault),
}

/// One call that is to fail: the `nth` of its name, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    call: String,
    nth: NonZeroU32,
    errno: i32,
}

/// The text names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fault is CALL:N:ERRNO, such as VFIO_IOMMU_MAP_DMA:3:12")]
pub struct FaultSyntax;

impl FromStr for Fault {
    type Err = FaultSyntax;

    fn from_str(text: &str) -> Result<Self, FaultSyntax> {
        let mut parts = text.split(':');
        let (Some(call), Some(nth), Some(errno), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FaultSyntax);
        };
        let errno = errno.parse().map_err(|_| FaultSyntax)?;
        if call.is_empty() || errno <= 0 {
            return Err(FaultSyntax);
        }
        Ok(Self {
            call: call.to_owned(),
            nth: nth.parse().map_err(|_| FaultSyntax)?,
            errno,
        })
    }
}

#[derive(Debug)]
struct Gate {
    mode: Mode,
    /// How many calls of each name have come by.
    passed: BTreeMap<&'static str, u32>,
}

impl Gate {
    /// Counts a call, and says what becomes of it.
    fn pass(&mut self, call: &'static str) -> io::Result<()> {
        let count = self.passed.entry(call).or_default();
        *count = count.saturating_add(1);
        match &self.mode {
            Mode::List => tracing::info!("host call {call} {count}"),
            Mode::Fail(fault) => {
                if fault.call == call && fault.nth.get() == *count {
                    tracing::info!("host call {call} {count} is made to fail");
                    return Err(io::Error::from_raw_os_error(fault.errno));
                }
            }
        }
        Ok(())
    }
}

/// Sets what the gate does from now on; call numbers start over.
pub fn arm(mode: Mode) {
    let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    gate.mode = mode;
    gate.passed.clear();
    ARMED.store(true, Ordering::Release);
}

pub(crate) fn pass(call: &'static str) -> io::Result<()> {
    if !ARMED.load(Ordering::Acquire) {
        return Ok(());
    }
    let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    gate.pass(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_call_that_is_named_fails_and_only_once() {
        let mut gate = Gate {
            mode: Mode::Fail("MAP:2:12".parse().unwrap()),
            passed: BTreeMap::new(),
        };
        let mut passed = |call| gate.pass(call).map_err(|error| error.raw_os_error());
        assert_eq!(passed("MAP"), Ok(()));
        assert_eq!(passed("UNMAP"), Ok(()));
        assert_eq!(passed("MAP"), Err(Some(12)));
        assert_eq!(passed("MAP"), Ok(()));
    }

    #[test]
    fn a_fault_needs_a_call_a_number_from_one_and_an_error() {
        for text in [
            "",
            "MAP",
            "MAP:1",
            ":1:5",
            "MAP:0:5",
            "MAP:1:0",
            "MAP:1:-5",
            "MAP:1:5:6",
        ] {
            assert_eq!(text.parse::<Fault>(), Err(FaultSyntax), "{text}");
        }
    }
}
