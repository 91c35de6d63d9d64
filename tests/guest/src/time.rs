//! The virtual counter.

use core::arch::asm;

/// Ticks since some time.
pub fn ticks() -> u64 {
    let ticks;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {0}, cntvct_el0", out(reg) ticks, options(nostack)) };
    ticks
}

/// Ticks per second.
pub fn frequency() -> u64 {
    let frequency;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {0}, cntfrq_el0", out(reg) frequency, options(nostack)) };
    frequency
}

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
