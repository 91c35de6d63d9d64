//! What the host finds in memory. The harness reads and writes it from outside, while the guest waits.

use super::{Outcome, Rig};
use crate::isolation::State;
use crate::machine::Range;
use crate::{mmio, report, time};

/// What the guest writes where the host is to see it.
const FROM_GUEST: u64 = 0x6775_6573_7420_3131;
/// What the host answers.
const FROM_HOST: u64 = 0x686f_7374_2032_3232;
/// What the host is not to see.
const SECRET: u64 = 0x7365_6372_6574_2033;

/// How long the harness may take, in seconds.
const PATIENCE: u64 = 120;

/// The host sees what the guest has written to a shared page, and the guest what the host has.
pub fn shared(rig: &mut Rig<'_>) -> Outcome {
    let range = rig.take_in(rig.granule(), State::Shared)?;
    let at = rig.machine.shared(range.start);
    mmio::write64(at, FROM_GUEST);
    mmio::write64(at + 8, 0);
    tell(rig, "shared", range);
    report!("waiting=yes");
    await_host(at + 8)?;
    match mmio::read64(at) {
        FROM_GUEST => Ok(()),
        _ => Err("the host changed more than it wrote".into()),
    }
}

/// The host does not see what the guest has written to a private page, and what it does there does not
/// harm the page beside.
pub fn private(rig: &mut Rig<'_>) -> Outcome {
    let shared = rig.take_in(rig.granule(), State::Shared)?;
    let at = rig.machine.shared(shared.start);
    mmio::write64(at + 8, 0);
    let private = rig.take_in(2 * rig.granule(), State::Private)?;
    let witness = private.start + rig.granule();
    for place in [private.start, witness] {
        mmio::write64(place, SECRET);
    }
    tell(rig, "shared", shared);
    tell(rig, "private", private);
    report!("waiting=yes");
    await_host(at + 8)?;
    match mmio::read64(witness) {
        SECRET => Ok(()),
        _ => Err("a page that the host did not touch has changed".into()),
    }
}

/// Where a range is, from the beginning of memory.
fn tell(rig: &Rig<'_>, name: &str, range: Range) {
    let starts = rig.machine.dram().map(|dram| dram.start);
    let offset = range.start - starts.min().unwrap_or_default();
    report!("{name}_offset={offset}");
}

fn await_host(place: u64) -> Outcome {
    match time::wait(PATIENCE, || mmio::read64(place) == FROM_HOST) {
        true => Ok(()),
        false => Err("nothing came from the host".into()),
    }
}
