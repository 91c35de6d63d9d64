//! What an assigned device reaches while memory changes its state. The device is QEMU's edu.

use super::{MIB_2, Outcome, Rig};
use crate::edu::Edu;
use crate::isolation::State;
use crate::machine::Range;
use crate::report;
use crate::tests::dma::{ALL, fill, matches};

/// By page, by extent and all of it: each range is converted there and back, and then the device reads and
/// writes its first page, its last and one between.
pub fn reaches_shared(rig: &mut Rig<'_>) -> Outcome {
    let edu = Edu::find(rig.machine)?;
    let witness = Place::new(rig, rig.granule(), State::Shared)?;
    reaches(rig, &edu, witness, witness.range)?;
    for bytes in [rig.granule(), MIB_2 + 3 * rig.granule()] {
        let range = rig.take_in(bytes, State::Shared)?;
        round_trip(rig, &edu, witness, range)?;
    }
    let rest = rig.spare.rest(rig.granule());
    report!("converted_bytes={}", rest.bytes());
    if rig.isolation.first_state() != State::Shared {
        rig.isolation.set(rest, State::Shared)?;
    }
    round_trip(rig, &edu, witness, rest)
}

/// One shared page.
pub fn reaches_page(rig: &mut Rig<'_>) -> Outcome {
    let edu = Edu::find(rig.machine)?;
    let witness = Place::new(rig, rig.granule(), State::Shared)?;
    reaches(rig, &edu, witness, witness.range)
}

/// A shared range goes private and comes back, where pages have a state.
fn round_trip(rig: &Rig<'_>, edu: &Edu, witness: Place, range: Range) -> Outcome {
    reaches(rig, edu, witness, range)?;
    if rig.isolation.converts() {
        rig.isolation.set(range, State::Private)?;
        rig.isolation.set(range, State::Shared)?;
        reaches(rig, edu, witness, range)?;
    }
    Ok(())
}

fn reaches(rig: &Rig<'_>, edu: &Edu, witness: Place, range: Range) -> Outcome {
    for (seed, page) in (1..).zip(some_pages(rig, range)) {
        let at = rig.machine.shared(page);
        fill(at, seed);
        edu.read(at)?;
        fill(at, seed + 10);
        edu.write(at)?;
        if matches(at, seed) != ALL {
            return Err("the device does not reach a shared page".into());
        }
        // What it has read is what was there, too.
        fill(witness.at, 0);
        edu.write(witness.at)?;
        if matches(witness.at, seed) != ALL {
            return Err("the device reads something else".into());
        }
    }
    Ok(())
}

/// A page that the guest reaches.
#[derive(Clone, Copy)]
struct Place {
    range: Range,
    at: u64,
}

impl Place {
    fn new(rig: &mut Rig<'_>, bytes: u64, state: State) -> Result<Self, crate::tests::Failure> {
        let range = rig.take_in(bytes, state)?;
        let at = rig.pattern(range, state).at();
        Ok(Self { range, at })
    }
}

/// By page and by extent: while a range is private the device neither reads nor writes it, by either of
/// its addresses. It reaches it before and afterwards.
pub fn misses_private(rig: &mut Rig<'_>) -> Outcome {
    let edu = Edu::find(rig.machine)?;
    let witness = Place::new(rig, rig.granule(), State::Shared)?;
    for bytes in [rig.granule(), MIB_2 + 3 * rig.granule()] {
        let range = rig.take_in(bytes, State::Shared)?;
        reaches(rig, &edu, witness, range)?;
        rig.isolation.set(range, State::Private)?;
        for page in some_pages(rig, range) {
            misses(rig, &edu, witness, page)?;
        }
        rig.isolation.set(range, State::Shared)?;
        reaches(rig, &edu, witness, range)?;
    }
    report!("private_dma=blocked");
    Ok(())
}

fn misses(rig: &Rig<'_>, edu: &Edu, witness: Place, page: u64) -> Outcome {
    const SECRET: u64 = 0x5ec;
    const KNOWN: u64 = 0x77;
    for address in [page, rig.machine.shared(page)] {
        fill(page, SECRET);
        fill(witness.at, KNOWN);
        edu.read(witness.at)?;
        edu.write(address)?;
        if matches(page, SECRET) != ALL {
            return Err("the device wrote to a private page".into());
        }
        edu.read(address)?;
        edu.write(witness.at)?;
        if matches(witness.at, SECRET) != 0 {
            return Err("the device read a private page".into());
        }
    }
    Ok(())
}

/// The first page of a range, one in the middle, and the last.
fn some_pages(rig: &Rig<'_>, range: Range) -> [u64; 3] {
    let pages = range.bytes() / rig.granule();
    [0, pages / 2, pages - 1].map(|number| range.start + number * rig.granule())
}
