//! A device that is assigned to this VM.

use super::Outcome;
use crate::edu::{BYTES, Edu};
use crate::machine::Machine;
use crate::rsi::{EMPTY, GRANULE};
#[cfg(target_arch = "aarch64")]
use crate::rsi::{RAM, Realm};
use crate::{mmio, report};

/// Fills what one transfer copies with numbers that tell `seed` and their place.
pub fn fill(start: u64, seed: u64) {
    for offset in (0..BYTES).step_by(8) {
        mmio::write64(start + offset, seed << 32 | offset);
    }
}

/// How many numbers are as [`fill`] has put them.
pub fn matches(start: u64, seed: u64) -> usize {
    let offsets = (0..BYTES).step_by(8);
    offsets
        .filter(|offset| mmio::read64(start + offset) == seed << 32 | offset)
        .count()
}

/// How many numbers that is.
pub const ALL: usize = BYTES as usize / 8;

/// Shares a page, where this is a Realm.
pub fn share(machine: &Machine<'_>, page: u64) -> Outcome {
    if let Some(realm) = machine.realm {
        realm.set(page, page + GRANULE, EMPTY)?;
    }
    Ok(())
}

/// The device reads the end of the highest page of memory into its buffer, and writes it back.
pub fn highest_page(machine: &Machine<'_>) -> Outcome {
    let edu = Edu::find(machine)?;
    let page = machine.highest_page();
    share(machine, page)?;
    let alias = machine.shared(page + GRANULE - BYTES);
    report!("page={page:#x}");
    report!("dma_address={:#x}", alias + BYTES - 1);
    fill(alias, 1);
    edu.read(alias)?;
    fill(alias, 2);
    edu.write(alias)?;
    match (matches(alias, 1), matches(alias, 2)) {
        (ALL, _) => Ok(()),
        (_, ALL) => Err("the device did not reach the page".into()),
        _ => Err("the device reached the page and got it wrong".into()),
    }
}

/// The device writes to where there is no memory, which harms nobody.
pub fn beyond_memory(machine: &Machine<'_>) -> Outcome {
    let edu = Edu::find(machine)?;
    let page = machine.free_memory(GRANULE).ok_or("no free memory")?;
    share(machine, page)?;
    let (page, beyond) = (machine.shared(page), machine.beyond_memory());
    report!("beyond={beyond:#x}");
    fill(page, 1);
    edu.read(page)?;
    edu.write(machine.shared(beyond))?;
    fill(page, 2);
    edu.write(page)?;
    match matches(page, 1) {
        ALL => Ok(()),
        _ => Err("the device does not reach memory any more".into()),
    }
}

/// The device reaches a page while it is shared, and neither reads nor writes it from then on.
#[cfg(target_arch = "aarch64")]
pub fn private_again(machine: &Machine<'_>, realm: Realm) -> Outcome {
    let edu = Edu::find(machine)?;
    let page = machine.free_memory(2 * GRANULE).ok_or("no free memory")?;
    let witness = page + GRANULE;
    share(machine, page)?;
    share(machine, witness)?;
    let (alias, witness) = (machine.shared(page), machine.shared(witness));
    fill(alias, 1);
    edu.read(alias)?;
    edu.write(witness)?;
    if matches(witness, 1) != ALL {
        return Err("the device does not reach a shared page".into());
    }
    report!("shared_dma=ok");

    realm.set(page, page + GRANULE, RAM)?;
    fill(page, 2);
    edu.write(alias)?;
    if matches(page, 2) != ALL {
        return Err("the device wrote to a private page".into());
    }
    edu.read(alias)?;
    edu.write(witness)?;
    if matches(witness, 2) != 0 {
        return Err("the device read a private page".into());
    }
    report!("private_dma=blocked");

    realm.set(page, page + GRANULE, EMPTY)?;
    fill(alias, 3);
    edu.read(alias)?;
    edu.write(witness)?;
    if matches(witness, 3) != ALL {
        return Err("the device does not reach a page that is shared again".into());
    }
    report!("shared_again_dma=ok");
    Ok(())
}
