//! Pages that change their state.

use super::Outcome;
use crate::arch::exception::{Aborted, try_load, try_store};
use crate::machine::Machine;
use crate::rsi::{EMPTY, GRANULE, RAM, Realm};
use crate::{mmio, report};

const MIB_2: u64 = 2 << 20;

/// A shared page is another one than the private page was, and the same at both of its addresses.
pub fn contents(machine: &Machine<'_>, realm: Realm) -> Outcome {
    let block = machine.free_memory(MIB_2).ok_or("no free memory")?;
    let page = block + 5 * GRANULE;
    let alias = machine.shared(page);
    mmio::write64(page, 0x1111);
    mmio::write64(page + GRANULE, 0x2222);
    if realm.get(page, block + MIB_2)? != (RAM, block + MIB_2) {
        return Err("memory does not start as RAM".into());
    }
    realm.set(page, page + GRANULE, EMPTY)?;
    if realm.get(page, block + MIB_2)? != (EMPTY, page + GRANULE) {
        return Err("a shared page is not reported as such".into());
    }
    if mmio::read64(alias) != 0 {
        return Err("a page kept its content when it was shared".into());
    }
    mmio::write64(alias, 0x3333);
    if mmio::read64(page) != 0x3333 {
        return Err("a shared page differs at its own address".into());
    }
    realm.set(page, page + GRANULE, RAM)?;
    if mmio::read64(page) != 0 {
        return Err("a page kept its content when it became private".into());
    }
    if mmio::read64(page + GRANULE) != 0x2222 {
        return Err("a neighbour lost its content".into());
    }
    realm.set(block, block + MIB_2, EMPTY)?;
    for page in (block..block + MIB_2).step_by(GRANULE as usize) {
        if mmio::read64(machine.shared(page)) != 0 {
            return Err("a page came back with content when it was shared again".into());
        }
    }
    realm.set(block, block + MIB_2, RAM)?;
    Ok(())
}

/// A private page does not answer at its alias, before and after it has been shared.
pub fn alias_of_private(machine: &Machine<'_>, realm: Realm) -> Outcome {
    let page = machine.free_memory(MIB_2).ok_or("no free memory")?;
    let alias = machine.shared(page);
    mmio::write64(page, 0x1111);
    let mut aborts = 0;
    for _ in 0..2 {
        for accessed in [try_load(alias).map(drop), try_store(alias, 0x2222)] {
            match accessed {
                Ok(()) => return Err("a private page answers at its alias".into()),
                Err(Aborted) => aborts += 1,
            }
        }
        realm.set(page, page + GRANULE, EMPTY)?;
        if try_store(alias, 0x3333).is_err() || try_load(alias) != Ok(0x3333) {
            return Err("a shared page does not answer at its alias".into());
        }
        realm.set(page, page + GRANULE, RAM)?;
    }
    report!("aborts={aborts}");
    if mmio::read64(page) != 0 {
        return Err("a store through the alias reached a private page".into());
    }
    Ok(())
}

/// Shares every second page for as long as the host can follow. It must say when it cannot, lose
/// nothing, and go on afterwards.
pub fn fragment(machine: &Machine<'_>, realm: Realm) -> Outcome {
    const BYTES: u64 = 256 << 20;
    let start = machine.free_memory(BYTES).ok_or("no free memory")?;
    let end = start + BYTES;
    let mut shared = 0;
    for page in (start..end).step_by(2 * GRANULE as usize) {
        mmio::write64(page, page);
        if realm.set(page, page + GRANULE, EMPTY).is_err() {
            if mmio::read64(page) != page {
                return Err("a refused conversion cost the page its content".into());
            }
            break;
        }
        shared += 1;
    }
    report!("shared_pages={shared}");
    realm.set(start, end, RAM)?;
    if realm.get(start, end)? != (RAM, end) {
        return Err("not all pages are private again".into());
    }
    realm.set(start, start + GRANULE, EMPTY)?;
    Ok(())
}
