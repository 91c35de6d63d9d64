//! Both processors convert memory at random while a disk transfers to and from shared pages between.
//!
//! Each processor has memory of its own, and knows for each page of it whether it is shared and what
//! is in it. The disk's buffers lie in the middle of that memory: they stay shared throughout, and all
//! around them changes. What the disk brings back is compared with what was written, word by word.

mod arena;
mod disk;

use core::sync::atomic::{AtomicBool, Ordering};

use super::{Failure, Outcome};
use crate::arch::processor;
use crate::lock::Spin;
use crate::machine::{Machine, Range};
use crate::memory::{Shared, Spare};
use crate::random::Random;
use crate::rsi::{GRANULE, Realm};
use crate::{report, time};
use arena::Arena;
use disk::Traffic;

const MIB: u64 = 1 << 20;

/// Memory of one processor.
const ARENA: u64 = 64 * MIB;
/// Buffers in it.
const ISLANDS: usize = 4;
/// The largest range that is converted at once, in pages.
const MOST_PAGES: u64 = 4 * MIB / GRANULE;

/// How many seconds the guest stays after all is done.
const STAYS: u64 = 4;

/// Set by whoever finds something wrong.
static STOP: AtomicBool = AtomicBool::new(false);

/// One processor's part.
struct Worker {
    name: &'static str,
    realm: Realm,
    arena: Arena,
    random: Random,
    end: u64,
    conversions: u64,
    pages: u64,
}

impl Worker {
    /// Converts until the time is over or something is wrong; calls `between` after each conversion.
    fn run(&mut self, mut between: impl FnMut() -> Outcome) -> Outcome {
        let mut told = time::ticks();
        while time::ticks() < self.end && !STOP.load(Ordering::Relaxed) {
            self.pages += self.arena.convert(self.realm, &mut self.random)?;
            self.conversions += 1;
            between()?;
            if time::ticks() - told > 10 * time::frequency() {
                told = time::ticks();
                report!("{}_so_far={}", self.name, self.conversions);
            }
        }
        Ok(())
    }

    fn guarded(&mut self, between: impl FnMut() -> Outcome) -> Outcome {
        let outcome = self.run(between);
        if outcome.is_err() {
            STOP.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// The storm: `seconds=` on the command line says for how long, `seed=` which one, and `accept=yes` that
/// the disk is accepted first.
pub fn run(machine: &Machine<'_>, realm: Realm) -> Outcome {
    let seconds = machine.number_argument("seconds").unwrap_or(60);
    let seed = machine.number_argument("seed").unwrap_or_else(time::ticks);
    report!("seed={seed}");
    let mut spare = Spare::of(machine);
    let mut random = Random::new(seed);
    let mut arenas = [const { None }; 2];
    let mut islands = [const { None }; 2 * ISLANDS];
    for (arena, islands) in arenas.iter_mut().zip(islands.chunks_mut(ISLANDS)) {
        let range = spare.take(ARENA, MIB)?;
        let places = islands_in(range);
        for (island, place) in islands.iter_mut().zip(places) {
            *island = Some(Shared::new(machine, place)?);
        }
        let model = spare.take(Arena::model_bytes(range), GRANULE)?;
        *arena = Some(Arena::new(machine, range, model, places));
    }
    let islands = islands.map(|island| island.ok_or("no buffer"));
    let mut traffic = Traffic::find(machine, &mut spare, islands, random.next())?;
    if machine.argument("accept") == Some("yes") {
        traffic.as_ref().ok_or("there is no disk")?.accept()?;
        report!("accepted=yes");
    }
    report!("disk={}", if traffic.is_some() { "yes" } else { "no" });

    let end = time::ticks() + seconds * time::frequency();
    let mut workers = arenas.into_iter().flatten().zip(["first", "second"]);
    let mut workers = core::iter::from_fn(|| {
        let (arena, name) = workers.next()?;
        Some(Worker {
            name,
            realm,
            arena,
            random: Random::new(random.next()),
            end,
            conversions: 0,
            pages: 0,
        })
    });
    let (Some(mut first), Some(second)) = (workers.next(), workers.next()) else {
        return Err("two workers are one too many".into());
    };
    let second = Spin::new((second, Ok(())));
    let other = || {
        let mut held = second.lock();
        let (worker, outcome) = &mut *held;
        *outcome = worker.guarded(|| Ok(()));
    };
    let outcome = processor::beside(machine, &other, || {
        first.guarded(|| match &mut traffic {
            Some(traffic) => Ok(traffic.step()?),
            None => Ok(()),
        })
    })?;
    outcome?;
    let mut held = second.lock();
    let (second, outcome) = &mut *held;
    core::mem::replace(outcome, Ok(()))?;
    finish([&mut first, second], traffic)
}

/// Looks at every page once more, and reports.
fn finish(workers: [&mut Worker; 2], traffic: Option<Traffic>) -> Outcome {
    if let Some(mut traffic) = traffic {
        traffic.drain()?;
        report!("transfers={}", traffic.transfers);
        report!("verified_bytes={}", traffic.verified);
    }
    let (mut conversions, mut pages) = (0, 0);
    for worker in workers {
        worker.arena.check_all(worker.realm)?;
        report!("{}_conversions={}", worker.name, worker.conversions);
        conversions += worker.conversions;
        pages += worker.pages;
    }
    report!("conversions={conversions}");
    report!("converted_pages={pages}");
    // Whoever looks from outside sees the end, too.
    time::wait(STAYS, || false);
    Ok(())
}

/// Where the buffers in a range are: at odd places, so that nothing large is aligned next to them.
fn islands_in(range: Range) -> [Range; ISLANDS] {
    let distance = range.bytes() / (ISLANDS as u64 + 1);
    core::array::from_fn(|number| {
        let start = range.start + distance * (number as u64 + 1);
        let start = start.next_multiple_of(GRANULE) + 3 * GRANULE;
        Range {
            start,
            end: start + disk::ISLAND_PAGES * GRANULE,
        }
    })
}

impl From<arena::Wrong> for Failure {
    fn from(wrong: arena::Wrong) -> Self {
        match wrong {
            arena::Wrong::Refused(refused) => Self::Refused(refused),
            arena::Wrong::Page(page, what) => {
                report!("wrong_page={page:#x}");
                Self::Wrong(what)
            }
        }
    }
}
