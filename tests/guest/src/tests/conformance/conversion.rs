//! Ranges that change their state, there and back.

use super::{MIB_2, Outcome, Rig};
use crate::isolation::{Content, State};
use crate::machine::Range;
use crate::report;

/// The seed of what lies beside a range.
const BESIDE: u64 = 0x7777;

/// Single pages: each changes alone, among pages that do not.
pub fn pages(rig: &mut Rig<'_>) -> Outcome {
    const PAGES: u64 = 12;
    let granule = rig.granule();
    let block = rig.take(MIB_2)?;
    for number in 0..PAGES {
        // Odd and even ones, the first and the last but the margins.
        let last = block.bytes() / granule - 2;
        let page = 1 + number * (last - 1) / (PAGES - 1);
        let start = block.start + page * granule;
        let end = start + granule;
        amid_others(rig, Range { start, end })?;
    }
    Ok(())
}

/// Extents: a large page of the processor's, one that is shifted against it, and a small one.
pub fn extents(rig: &mut Rig<'_>) -> Outcome {
    let granule = rig.granule();
    let block = rig.take(4 * MIB_2)?;
    for (offset, bytes) in [
        (MIB_2, MIB_2),
        (granule, MIB_2 + granule),
        (MIB_2 - 5 * granule, 7 * granule),
    ] {
        let start = block.start + offset;
        let end = start + bytes;
        amid_others(rig, Range { start, end })?;
    }
    Ok(())
}

/// All memory that nobody uses.
pub fn all(rig: &mut Rig<'_>) -> Outcome {
    let range = rig.spare.rest(rig.granule());
    report!("converted_bytes={}", range.bytes());
    if range.bytes() < 16 * MIB_2 {
        return Err("this is not most of the memory".into());
    }
    there_and_back(rig, range)
}

/// As [`there_and_back`], between two private granules that stay as they are.
fn amid_others(rig: &Rig<'_>, range: Range) -> Outcome {
    let granule = rig.granule();
    let beside = [range.start - granule, range.end];
    let beside = beside.map(|start| Range {
        start,
        end: start + granule,
    });
    for margin in beside {
        make_private(rig, margin)?;
        rig.pattern(margin, State::Private).fill(BESIDE);
    }
    there_and_back(rig, range)?;
    for margin in beside {
        rig.pattern(margin, State::Private).expect(BESIDE)?;
        restore(rig, margin)?;
    }
    Ok(())
}

/// A range in its first state goes private, shared, private, shared, and back to its first state. Its
/// content is what the platform says each time.
pub fn there_and_back(rig: &Rig<'_>, range: Range) -> Outcome {
    make_private(rig, range)?;
    let mut before = State::Private;
    rig.pattern(range, before).fill(1);
    for seed in 1..=3 {
        let after = match before {
            State::Private => State::Shared,
            State::Shared => State::Private,
        };
        rig.isolation.set(range, after)?;
        let pattern = rig.pattern(range, after);
        match rig.isolation.content() {
            Content::Kept => pattern.expect(seed)?,
            Content::Fresh => pattern.expect_zeros()?,
        }
        pattern.fill(seed + 1);
        pattern.expect(seed + 1)?;
        before = after;
    }
    if rig.isolation.first_state() == State::Private {
        rig.isolation.set(range, State::Private)?;
    }
    Ok(())
}

fn make_private(rig: &Rig<'_>, range: Range) -> Outcome {
    if rig.isolation.first_state() == State::Shared {
        rig.isolation.set(range, State::Private)?;
    }
    Ok(())
}

/// Brings a private range into its first state.
fn restore(rig: &Rig<'_>, range: Range) -> Outcome {
    if rig.isolation.first_state() == State::Shared {
        rig.isolation.set(range, State::Shared)?;
    }
    Ok(())
}
