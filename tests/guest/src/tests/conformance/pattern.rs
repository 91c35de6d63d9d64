//! What a test writes to pages, and finds again.

use crate::machine::Range;
use crate::mmio;
use crate::rsi::GRANULE;

/// Pages, each of which is to hold a number of its own at its beginning and at its end.
#[derive(Clone, Copy)]
pub struct Pattern {
    range: Range,
    at: u64,
}

impl Pattern {
    /// Of `range`, which is accessed from `at` on.
    pub fn new(range: Range, at: u64) -> Self {
        Self { range, at }
    }

    /// Where the first page is accessed.
    pub fn at(self) -> u64 {
        self.at
    }

    /// Writes the numbers of `seed`.
    pub fn fill(self, seed: u64) {
        for (page, at) in self.pages() {
            for at in ends(at) {
                mmio::write64(at, number(page, seed));
            }
        }
    }

    /// They are there, and nothing else.
    pub fn expect(self, seed: u64) -> Result<(), &'static str> {
        self.check(|page| number(page, seed))
    }

    /// There are zeros.
    pub fn expect_zeros(self) -> Result<(), &'static str> {
        self.check(|_| 0)
    }

    fn check(self, expected: impl Fn(u64) -> u64) -> Result<(), &'static str> {
        for (page, at) in self.pages() {
            let found = ends(at).map(mmio::read64);
            if found != [expected(page); 2] {
                crate::report!("wrong_page={page:#x}");
                crate::report!("found={:#x}", found[0]);
                crate::report!("expected={:#x}", expected(page));
                return Err("a page does not hold what it must");
            }
        }
        Ok(())
    }

    /// Each page, and where it is accessed.
    fn pages(self) -> impl Iterator<Item = (u64, u64)> {
        let pages = (self.range.start..self.range.end).step_by(GRANULE as usize);
        pages.map(move |page| (page, self.at + (page - self.range.start)))
    }
}

/// The first and the last number of a page.
fn ends(page: u64) -> [u64; 2] {
    [page, page + GRANULE - 8]
}

fn number(page: u64, seed: u64) -> u64 {
    (seed << 48) | (page / GRANULE)
}
