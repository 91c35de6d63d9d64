//! How long a conversion takes.

use super::Outcome;
use crate::isolation::{Isolation, State};
use crate::machine::{Machine, Range};
use crate::rsi::GRANULE;
use crate::{report, time};

/// By size, there and back, and a call that does nothing.
pub fn run(machine: &Machine<'_>) -> Outcome {
    const CALLS: u64 = 256;
    let isolation = Isolation::of(machine);
    if !isolation.converts() {
        return Err("no page changes its state here".into());
    }
    let page = machine.free_memory(GRANULE).ok_or("no free memory")?;
    let begin = time::ticks();
    for _ in 0..CALLS {
        isolation.idle(page)?;
    }
    let ticks = time::ticks() - begin;
    report!("exit_us={}", time::microseconds(ticks / CALLS));
    let sizes = [
        ("4k", GRANULE, 256),
        ("2m", 2 << 20, 32),
        ("1g", 1 << 30, 2),
    ];
    for (name, bytes, rounds) in sizes {
        let Some(start) = machine.free_memory(bytes.max(isolation.granule())) else {
            report!("convert_{name}=skipped, memory is too small");
            continue;
        };
        let end = start + bytes.max(isolation.granule());
        let (share, unshare) = conversions(isolation, Range { start, end }, rounds)?;
        report!("share_{name}_us={}", time::microseconds(share / rounds));
        report!("unshare_{name}_us={}", time::microseconds(unshare / rounds));
    }
    Ok(())
}

/// The ticks of so many rounds: of those that share, and of those that take back.
fn conversions(
    isolation: Isolation,
    range: Range,
    rounds: u64,
) -> Result<(u64, u64), super::Failure> {
    let (mut share, mut unshare) = (0, 0);
    if isolation.first_state() == State::Shared {
        isolation.set(range, State::Private)?;
    }
    for _ in 0..rounds {
        let begin = time::ticks();
        isolation.set(range, State::Shared)?;
        let middle = time::ticks();
        isolation.set(range, State::Private)?;
        share += middle - begin;
        unshare += time::ticks() - middle;
    }
    if isolation.first_state() == State::Shared {
        isolation.set(range, State::Shared)?;
    }
    Ok((share, unshare))
}
