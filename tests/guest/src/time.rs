//! Time, by a counter that every architecture has.

pub use crate::arch::time::{frequency, ticks};

/// `ticks` in microseconds.
pub fn microseconds(ticks: u64) -> u64 {
    let microseconds = u128::from(ticks) * 1_000_000 / u128::from(frequency());
    u64::try_from(microseconds).unwrap_or(u64::MAX)
}

/// Calls `done` until it says so, or for `seconds` at most; returns whether it did.
pub fn wait(seconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = ticks() + seconds * frequency();
    loop {
        if done() {
            return true;
        }
        if ticks() > end {
            return false;
        }
    }
}
