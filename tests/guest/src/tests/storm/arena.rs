//! Memory of which one processor knows what must be in each page.

use super::{ISLANDS, MOST_PAGES};
use crate::machine::{Machine, Range};
use crate::mmio;
use crate::random::Random;
use crate::rsi::{EMPTY, GRANULE, RAM, Realm, Refused};

/// How many pages of a range are looked at, and how many are written, in one conversion.
const LOOKED_AT: u64 = 24;

/// The memory, and a word for each page of it: [`SHARED`], and a number that the page holds, or 0 for a
/// page that holds zeros.
pub struct Arena {
    range: Range,
    model: u64,
    shared_bit: u64,
    islands: [Range; ISLANDS],
    last_number: u32,
}

const SHARED: u32 = 1 << 31;

/// What is not as it must be.
pub enum Wrong {
    /// The host refused.
    Refused(Refused),
    /// Of this page.
    Page(u64, &'static str),
}

impl From<Refused> for Wrong {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Arena {
    /// How much memory is needed to know what is in `range`.
    pub fn model_bytes(range: Range) -> u64 {
        (range.bytes() / GRANULE * 4).next_multiple_of(GRANULE)
    }

    /// `range` is private and holds zeros, but for the `islands`.
    pub fn new(
        machine: &Machine<'_>,
        range: Range,
        model: Range,
        islands: [Range; ISLANDS],
    ) -> Self {
        Self {
            range,
            model: model.start,
            shared_bit: machine.shared_bit().unwrap_or(0),
            islands,
            last_number: 0,
        }
    }

    /// Converts a range at random, checks it, and writes to some of it. Returns how many pages it has.
    pub fn convert(&mut self, realm: Realm, random: &mut Random) -> Result<u64, Wrong> {
        let range = self.choose(random);
        let shared = random.below(2) == 0;
        self.look(range, random)?;
        realm.set(range.start, range.end, if shared { EMPTY } else { RAM })?;
        for page in pages(range) {
            let word = self.word(page);
            if (word & SHARED != 0) != shared {
                self.set_word(page, if shared { SHARED } else { 0 });
            }
        }
        self.check_state(realm, range)?;
        self.look(range, random)?;
        // What is next to it has not changed.
        for page in [range.start.wrapping_sub(GRANULE), range.end] {
            self.check(page)?;
        }
        for _ in 0..1 + random.below(LOOKED_AT) {
            let page = page_in(range, random);
            self.last_number = (self.last_number + 1) % SHARED;
            self.fill(page, self.last_number);
        }
        Ok(range.bytes() / GRANULE)
    }

    /// Looks at every page.
    pub fn check_all(&self, realm: Realm) -> Result<(), Wrong> {
        self.check_state(realm, self.range)?;
        pages(self.range).try_for_each(|page| self.check(page))
    }

    /// A range without a part of an island.
    fn choose(&self, random: &mut Random) -> Range {
        let mut start = page_in(self.range, random);
        let inside = self.islands.iter().find(|island| island.contains(start));
        if let Some(island) = inside {
            start = island.end;
        }
        let end = self
            .range
            .end
            .min(start + random.size(MOST_PAGES) * GRANULE);
        let ahead = self.islands.iter().filter(|island| island.start >= start);
        let end = ahead.fold(end, |end, island| end.min(island.start));
        Range { start, end }
    }

    /// Looks at some pages of a range, and at the first and the last.
    fn look(&self, range: Range, random: &mut Random) -> Result<(), Wrong> {
        self.check(range.start)?;
        self.check(range.end - GRANULE)?;
        (0..LOOKED_AT).try_for_each(|_| self.check(page_in(range, random)))
    }

    fn check(&self, page: u64) -> Result<(), Wrong> {
        if !self.range.contains(page) || self.islands.iter().any(|island| island.contains(page)) {
            return Ok(());
        }
        let word = self.word(page);
        let expected = content(page, word & !SHARED);
        let at = self.accessed(page, word);
        match [0, GRANULE - 8].map(|offset| mmio::read64(at + offset)) {
            found if found == [expected; 2] => Ok(()),
            _ if expected == 0 => Err(Wrong::Page(page, "a page that must be zero is not")),
            [0, 0] => Err(Wrong::Page(page, "a page has lost its content")),
            _ => Err(Wrong::Page(page, "a page holds what was never put there")),
        }
    }

    fn fill(&self, page: u64, number: u32) {
        let word = self.word(page) & SHARED | number;
        self.set_word(page, word);
        let at = self.accessed(page, word);
        for offset in [0, GRANULE - 8] {
            mmio::write64(at + offset, content(page, number));
        }
    }

    /// The RMM says of each page what is known of it. Islands are shared.
    fn check_state(&self, realm: Realm, range: Range) -> Result<(), Wrong> {
        let mut at = range.start;
        while at < range.end {
            let (state, end) = realm.get(at, range.end)?;
            for page in pages(Range { start: at, end }) {
                let island = self.islands.iter().any(|island| island.contains(page));
                let shared = island || self.word(page) & SHARED != 0;
                if (state == EMPTY) != shared {
                    return Err(Wrong::Page(
                        page,
                        "a page is not in the state it was put in",
                    ));
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Where a page is accessed.
    fn accessed(&self, page: u64, word: u32) -> u64 {
        match word & SHARED {
            0 => page,
            _ => page | self.shared_bit,
        }
    }

    fn word(&self, page: u64) -> u32 {
        mmio::read32(self.place_of_word(page))
    }

    fn set_word(&self, page: u64, word: u32) {
        mmio::write32(self.place_of_word(page), word);
    }

    fn place_of_word(&self, page: u64) -> u64 {
        self.model + (page - self.range.start) / GRANULE * 4
    }
}

fn content(page: u64, number: u32) -> u64 {
    match number {
        0 => 0,
        _ => u64::from(number) << 32 | page / GRANULE,
    }
}

fn page_in(range: Range, random: &mut Random) -> u64 {
    range.start + random.below(range.bytes() / GRANULE) * GRANULE
}

fn pages(range: Range) -> impl Iterator<Item = u64> {
    (range.start..range.end).step_by(GRANULE as usize)
}
