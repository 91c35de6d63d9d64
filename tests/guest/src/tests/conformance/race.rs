//! Two processors convert pages of one block at the same time.
//!
//! ```text
//! at first   each its own pages, every second one    0 1 0 1 0 1 0 1
//! then       both the same pages                     x x x x x x x x
//! ```
//! In the first part each page holds what its processor knows. In the second nobody knows who comes last:
//! afterwards each page can be brought into a state again, and behaves.

use super::conversion::there_and_back;
use super::{MIB_2, Outcome, Pattern, Rig};
use crate::arch::processor;
use crate::isolation::{Content, Isolation, State};
use crate::lock::Spin;
use crate::machine::Range;
use crate::random::Random;
use crate::report;

/// Pages of the block.
const PAGES: u64 = 64;
/// Conversions of each processor in the first part, and in the second.
const APART: u64 = 256;
const TOGETHER: u64 = 128;
/// Pages that both want.
const WANTED: u64 = 4;

/// What a processor knows of a page.
#[derive(Clone, Copy)]
struct Known {
    state: State,
    /// The seed of its content; 0 for zeros.
    seed: u64,
}

/// One processor's part.
struct Worker<'r, 'm> {
    rig: &'r Rig<'m>,
    block: Range,
    /// The first of its pages; every second one from there on.
    first: u64,
    random: Random,
    known: [Known; (PAGES / 2) as usize],
    refused: u64,
}

/// Both parts.
pub fn run(rig: &mut Rig<'_>) -> Outcome {
    let block = rig.take_in(MIB_2.max(PAGES * rig.granule()), State::Private)?;
    let rig = &*rig;
    let mut first = Worker::new(rig, block, 0);
    let second = Spin::new((Worker::new(rig, block, 1), Ok(())));
    let other = || {
        let mut held = second.lock();
        let (worker, outcome) = &mut *held;
        *outcome = worker.run();
    };
    processor::beside(rig.machine, &other, || first.run())??;
    let mut held = second.lock();
    let (second, outcome) = &mut *held;
    core::mem::replace(outcome, Ok(()))?;
    report!("conversions={}", 2 * (APART + TOGETHER));
    report!("refused={}", first.refused + second.refused);
    settle(rig, block)
}

impl<'r, 'm> Worker<'r, 'm> {
    fn new(rig: &'r Rig<'m>, block: Range, first: u64) -> Self {
        let known = Known {
            state: State::Private,
            seed: 0,
        };
        Self {
            rig,
            block,
            first,
            random: Random::new(first + 1),
            known: [known; (PAGES / 2) as usize],
            refused: 0,
        }
    }

    fn run(&mut self) -> Outcome {
        for index in 0..PAGES / 2 {
            self.write(index, 1);
        }
        for round in 0..APART {
            self.convert_own(round + 2)?;
        }
        for index in 0..PAGES / 2 {
            self.check(index)?;
        }
        for _ in 0..TOGETHER {
            self.convert_wanted()?;
        }
        Ok(())
    }

    /// Changes the state of one of its own pages, and looks at it and at another.
    fn convert_own(&mut self, seed: u64) -> Outcome {
        let index = self.random.below(PAGES / 2);
        self.check(index)?;
        let known = &mut self.known[index as usize];
        known.state = match known.state {
            State::Private => State::Shared,
            State::Shared => State::Private,
        };
        if self.rig.isolation.content() == Content::Fresh {
            known.seed = 0;
        }
        let state = known.state;
        self.rig.isolation.set(self.page(index), state)?;
        self.check(index)?;
        self.write(index, seed);
        let another = self.random.below(PAGES / 2);
        self.check(another)
    }

    /// Asks for a state of a page that the other processor wants, too.
    fn convert_wanted(&mut self) -> Outcome {
        let page = wanted(self.rig, self.block, self.random.below(WANTED));
        let state = match self.random.below(2) {
            0 => State::Private,
            _ => State::Shared,
        };
        match self.rig.isolation.set(page, state) {
            Ok(()) => Ok(()),
            // It was so already.
            Err(_) if !self.rig.isolation.repeats() => {
                self.refused += 1;
                Ok(())
            }
            Err(refused) => Err(refused.into()),
        }
    }

    fn write(&mut self, index: u64, seed: u64) {
        self.known[index as usize].seed = seed;
        self.pattern(index).fill(seed);
    }

    fn check(&self, index: u64) -> Outcome {
        let pattern = self.pattern(index);
        match self.known[index as usize].seed {
            0 => Ok(pattern.expect_zeros()?),
            seed => Ok(pattern.expect(seed)?),
        }
    }

    fn pattern(&self, index: u64) -> Pattern {
        let state = self.known[index as usize].state;
        self.rig.pattern(self.page(index), state)
    }

    /// The first half of the block is for pages of its own.
    fn page(&self, index: u64) -> Range {
        granule_at(self.rig, self.block, 2 * index + self.first)
    }
}

/// The pages that both want, at the end of the block.
fn wanted(rig: &Rig<'_>, block: Range, number: u64) -> Range {
    let last = block.bytes() / rig.granule() - 1;
    granule_at(rig, block, last - number)
}

fn granule_at(rig: &Rig<'_>, block: Range, number: u64) -> Range {
    let start = block.start + number * rig.granule();
    Range {
        start,
        end: start + rig.granule(),
    }
}

/// The pages that both wanted are in some state, and go on as if nothing had happened.
fn settle(rig: &Rig<'_>, block: Range) -> Outcome {
    for number in 0..WANTED {
        let page = wanted(rig, block, number);
        bring(rig.isolation, page, rig.isolation.first_state())?;
        there_and_back(rig, page)?;
    }
    Ok(())
}

/// Brings a page into a state, whatever it is in.
fn bring(isolation: Isolation, page: Range, state: State) -> Outcome {
    match isolation.set(page, state) {
        Err(_) if !isolation.repeats() => {
            // Either it is so already, or this is refused as well.
            let other = match state {
                State::Private => State::Shared,
                State::Shared => State::Private,
            };
            isolation.set(page, other)?;
            Ok(isolation.set(page, state)?)
        }
        outcome => Ok(outcome?),
    }
}
