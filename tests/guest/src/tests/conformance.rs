//! What every platform must do, in the same words: one test for each row of the harness's table.
//!
//! `row=` on the command line says which.

mod conversion;
mod device;
mod host;
mod pattern;
mod race;

use super::Outcome;
use crate::arch::processor;
use crate::isolation::{Isolation, State};
use crate::machine::{Machine, Range};
use crate::memory::Spare;
use crate::report;
use pattern::Pattern;

const MIB_2: u64 = 2 << 20;

/// The machine, and what of its memory nobody uses.
pub struct Rig<'m> {
    machine: &'m Machine<'m>,
    isolation: Isolation,
    spare: Spare,
}

impl Rig<'_> {
    /// The next unused `bytes` bytes, of which each granule is in the state that the platform starts with.
    fn take(&mut self, bytes: u64) -> Result<Range, &'static str> {
        self.spare.take(bytes, MIB_2.min(bytes.next_power_of_two()))
    }

    /// The same, all of them in `state`.
    fn take_in(&mut self, bytes: u64, state: State) -> Result<Range, super::Failure> {
        let range = self.take(bytes)?;
        if self.isolation.first_state() != state {
            self.isolation.set(range, state)?;
        }
        Ok(range)
    }

    /// What is written to `range` while it is in a state.
    fn pattern(&self, range: Range, state: State) -> Pattern {
        let at = match state {
            State::Private => range.start,
            State::Shared => self.machine.shared(range.start),
        };
        Pattern::new(range, at)
    }

    /// One granule.
    fn granule(&self) -> u64 {
        self.isolation.granule()
    }
}

/// Does the test of the row that the command line names.
pub fn run(machine: &Machine<'_>) -> Outcome {
    let isolation = Isolation::of(machine);
    report!("isolation={}", isolation.name());
    let mut rig = Rig {
        machine,
        isolation,
        spare: Spare::of(machine),
    };
    match machine.argument("row").unwrap_or_default() {
        "launch" => launch(&rig),
        "private-access" => access(&mut rig, State::Private),
        "shared-access" => access(&mut rig, State::Shared),
        "host-shared" => host::shared(&mut rig),
        "host-private" => host::private(&mut rig),
        "pages" => conversion::pages(&mut rig),
        "extents" => conversion::extents(&mut rig),
        "all" => conversion::all(&mut rig),
        "race" => race::run(&mut rig),
        "device" => device::reaches_shared(&mut rig),
        "device-page" => device::reaches_page(&mut rig),
        "device-private" => device::misses_private(&mut rig),
        "stay" => stay(&mut rig),
        _ => Err("there is no such row".into()),
    }
}

/// Both processors run, in the VM that the config describes.
fn launch(rig: &Rig<'_>) -> Outcome {
    use core::sync::atomic::{AtomicU64, Ordering};
    let memory: u64 = rig.machine.dram().map(Range::bytes).sum();
    report!("memory={memory}");
    report!("granule={}", rig.granule());
    let calls = AtomicU64::new(0);
    let second = || {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    for round in 1..=2 {
        processor::beside(rig.machine, &second, || ())?;
        if calls.load(Ordering::Relaxed) != round {
            return Err("the second processor does not do its work once".into());
        }
    }
    Ok(())
}

/// Pages in a state hold what is written to them, apart from each other.
fn access(rig: &mut Rig<'_>, state: State) -> Outcome {
    let range = rig.take_in(MIB_2 + 3 * rig.granule(), state)?;
    let pattern = rig.pattern(range, state);
    for seed in 1..=2 {
        pattern.fill(seed);
        pattern.expect(seed)?;
    }
    Ok(())
}

/// Holds shared pages, and the device where there is one, until somebody ends the VM.
fn stay(rig: &mut Rig<'_>) -> Outcome {
    use crate::edu::Edu;
    use crate::time;
    const SECONDS: u64 = 150;
    let range = rig.take_in(MIB_2, State::Shared)?;
    let pattern = rig.pattern(range, State::Shared);
    pattern.fill(1);
    let edu = Edu::find(rig.machine).ok();
    report!("staying=yes");
    let mut outcome = Ok(());
    time::wait(SECONDS, || {
        let moved = edu.as_ref().map_or(Ok(()), |edu| edu.read(pattern.at()));
        outcome = moved.and_then(|()| pattern.expect(1));
        outcome.is_err()
    });
    outcome?;
    Err("nobody ended this VM".into())
}
