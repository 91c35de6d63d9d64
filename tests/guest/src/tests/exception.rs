//! An access to a device from where an exception has just been taken.

use super::Outcome;
use crate::arch::load_in_exception;
use crate::machine::Machine;
use crate::rsi::GRANULE;
use crate::{mmio, report};

/// Places of that many functions, of which most are not there.
const PAGES: u64 = 64;

/// KVM itself delivers this exception. The access is the first to its page, and stops the processor before
/// it has done anything else.
pub fn then_device(machine: &Machine<'_>) -> Outcome {
    let ecam = machine.ecam.ok_or("there is no PCI")?;
    let pages = (0..PAGES).map(|page| ecam.start + page * GRANULE);
    let right = pages.filter(|page| load_in_exception(*page) == mmio::read32(*page));
    let right = right.count() as u64;
    report!("right={right}");
    match right == PAGES {
        true => Ok(()),
        false => Err("a load from a device gave something else".into()),
    }
}
