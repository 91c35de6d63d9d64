//! The tests of a software-protected VM: pages that this guest turns private by calls to KVM.

use super::Outcome;
use super::dma::{ALL, fill, matches};
use crate::arch::hypercall::{PAGE, map_gpa_range, map_gpa_range_with, maps_gpa_ranges};
use crate::edu::Edu;
use crate::machine::Machine;
use crate::random::Random;
use crate::{mmio, report, time};

const MIB_2: u64 = 2 << 20;
/// Answers of the call.
const INVALID: i64 = -22;

/// Runs the test of this name.
pub fn run(name: &str, machine: &Machine<'_>) -> Outcome {
    if !maps_gpa_ranges() {
        return Err("KVM offers no conversion of pages".into());
    }
    match name {
        "gpa-range" => contents(machine),
        "gpa-range-edu" => device(machine),
        "gpa-range-storm" => storm(machine),
        _ => Err("there is no such test".into()),
    }
}

/// Asks for a state, which must be given.
fn convert(start: u64, pages: u64, private: bool) -> Outcome {
    match map_gpa_range(start, pages, private) {
        0 => Ok(()),
        error => {
            report!("answer={error}");
            Err("a conversion was refused".into())
        }
    }
}

/// Whether all pages of a block begin with zero.
fn is_empty(block: u64) -> bool {
    let mut pages = (block..block + MIB_2).step_by(PAGE as usize);
    pages.all(|page| mmio::read64(page) == 0)
}

/// The two forms of a page are two pages, each empty when it comes into force; neighbours keep theirs; a
/// call that makes no sense changes nothing.
fn contents(machine: &Machine<'_>) -> Outcome {
    let block = machine.free_memory(MIB_2).ok_or("no free memory")?;
    let page = block + 5 * PAGE;
    mmio::write64(page, 0x1111);
    mmio::write64(page + PAGE, 0x2222);
    convert(page, 1, true)?;
    if mmio::read64(page) != 0 {
        return Err("a page kept its content when it became private".into());
    }
    mmio::write64(page, 0x3333);
    for attributes in [0x10, 0x12] {
        if map_gpa_range_with(page, 1, attributes) != 0 || mmio::read64(page) != 0x3333 {
            return Err("a page that was private already lost its content".into());
        }
    }
    let end = machine.dram().map(|range| range.end).max().unwrap_or(0);
    let nonsense = [
        (page + 8, 1, 0),
        (page, 0, 0),
        (page, 1, 0x20),
        (page, u64::MAX, 0),
        (end - PAGE, 2, 0),
        (machine.beyond_memory(), 1, 0x10),
        (!0xfff, 1, 0x10),
    ];
    for (start, pages, attributes) in nonsense {
        if map_gpa_range_with(start, pages, attributes) != INVALID {
            return Err("a call that makes no sense is not refused".into());
        }
    }
    if mmio::read64(page) != 0x3333 || mmio::read64(page + PAGE) != 0x2222 {
        return Err(
            "a page lost its content by a call that was refused, or by its neighbour's".into(),
        );
    }
    convert(page, 1, false)?;
    if mmio::read64(page) != 0 {
        return Err("a page kept its content when it was shared".into());
    }
    for private in [true, false] {
        fill(block, 9);
        convert(block, MIB_2 / PAGE, private)?;
        if !is_empty(block) {
            return Err("a block kept content over its conversion".into());
        }
    }
    Ok(())
}

/// The device reaches a page while it is shared, and neither reads nor writes it while it is private.
fn device(machine: &Machine<'_>) -> Outcome {
    let edu = Edu::find(machine)?;
    let page = machine.free_memory(2 * PAGE).ok_or("no free memory")?;
    let witness = page + PAGE;
    fill(page, 1);
    edu.read(page)?;
    edu.write(witness)?;
    if matches(witness, 1) != ALL {
        return Err("the device does not reach a shared page".into());
    }
    report!("shared_dma=ok");

    convert(page, 1, true)?;
    fill(page, 2);
    edu.write(page)?;
    if matches(page, 2) != ALL {
        return Err("the device wrote to a private page".into());
    }
    edu.read(page)?;
    edu.write(witness)?;
    if matches(witness, 2) != 0 {
        return Err("the device read a private page".into());
    }
    report!("private_dma=blocked");

    convert(page, 1, false)?;
    if mmio::read64(page) != 0 {
        return Err("the device wrote to a page that was not there".into());
    }
    fill(page, 3);
    edu.read(page)?;
    edu.write(witness)?;
    if matches(witness, 3) != ALL {
        return Err("the device does not reach a page that is shared again".into());
    }
    report!("shared_again_dma=ok");
    Ok(())
}

/// For `seconds=`: ranges around two pages change their state at random, while the device copies from one
/// of the two to the other.
fn storm(machine: &Machine<'_>) -> Outcome {
    let seconds = machine.number_argument("seconds").unwrap_or(5);
    let edu = Edu::find(machine)?;
    let block = machine.free_memory(MIB_2).ok_or("no free memory")?;
    let (source, target) = (block + 100 * PAGE, block + 101 * PAGE);
    let sides = [(block, 100), (target + PAGE, 512 - 102)];
    let mut random = Random::new(machine.number_argument("seed").unwrap_or(1));
    let (mut conversions, mut transfers) = (0, 0);
    let end = time::ticks() + seconds * time::frequency();
    while time::ticks() < end {
        for _ in 0..16 {
            let (start, pages) = sides[random.below(2) as usize];
            let first = random.below(pages);
            let count = random.size(pages - first);
            convert(start + first * PAGE, count, random.below(2) == 0)?;
            conversions += 1;
        }
        transfers += 1;
        fill(source, transfers);
        edu.read(source)?;
        edu.write(target)?;
        if matches(target, transfers) != ALL {
            return Err("the device lost data while pages around it changed".into());
        }
    }
    report!("conversions={conversions}");
    report!("transfers={transfers}");
    Ok(())
}
