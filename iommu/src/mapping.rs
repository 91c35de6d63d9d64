//! One entry of a DMA table, and the record of the entries that a host table holds.

use std::fmt;

use crate::addr::{Gpa, Iova, PAGE_SIZE, PageRange};
use crate::range_map::{Overlap, RangeMap};

/// What a device may do at a mapped address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Only read.
    Read,
    /// Only write.
    Write,
    /// Read and write.
    ReadWrite,
}

impl Access {
    /// Whether the device may read.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether the device may write.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// A contiguous range of IOVAs that reaches a contiguous range of guest pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses that the device uses.
    pub iova: PageRange<Iova>,
    /// The page that the first of them reaches.
    pub gpa: Gpa,
    /// What the device may do there.
    pub access: Access,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ({:?})", self.iova, self.gpa, self.access)
    }
}

impl Mapping {
    /// The part of it in `window`.
    pub(crate) fn cut(self, window: PageRange<Iova>) -> Option<Self> {
        let iova = self.iova.intersection(window)?;
        let skipped = iova.start().offset_from(self.iova.start())?;
        let gpa = self.gpa.checked_add(skipped)?;
        Some(Self { iova, gpa, ..self })
    }

    /// Whether it reaches a page of `pages`.
    #[must_use]
    pub fn reaches(self, pages: PageRange<Gpa>) -> bool {
        self.iova
            .rebased(self.gpa)
            .is_some_and(|reached| reached.overlaps(pages))
    }

    /// Whether `next` goes on where this one stops, in both spaces and with the same access.
    pub(crate) fn continues_in(self, next: Self) -> bool {
        self.iova.end() == next.iova.start()
            && self.gpa.checked_add(self.iova.bytes()) == Some(next.gpa)
            && self.access == next.access
    }
}

/// Mappings with those joined that go on where the one before stops.
pub(crate) fn joined(mappings: impl Iterator<Item = Mapping>) -> impl Iterator<Item = Mapping> {
    let mut mappings = mappings.peekable();
    std::iter::from_fn(move || {
        let mut whole = mappings.next()?;
        while let Some(next) = mappings.next_if(|next| whole.continues_in(*next)) {
            whole.iova = PageRange::between(whole.iova.start(), next.iova.end());
        }
        Some(whole)
    })
}

/// A page address and an access in one word: the address leaves twelve bits free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target(u64);

impl Target {
    pub(crate) fn new(page: u64, access: Access) -> Self {
        Self(
            page | match access {
                Access::Read => 1,
                Access::Write => 2,
                Access::ReadWrite => 3,
            },
        )
    }

    pub(crate) fn parts(self) -> (u64, Access) {
        let access = match self.0 % PAGE_SIZE {
            1 => Access::Read,
            2 => Access::Write,
            _ => Access::ReadWrite,
        };
        (self.0 & !(PAGE_SIZE - 1), access)
    }
}

fn mapping((iova, target): (PageRange<Iova>, Target)) -> Mapping {
    let (page, access) = target.parts();
    Mapping {
        iova,
        gpa: Gpa::new(page),
        access,
    }
}

/// The mappings that a host table holds, each as it was made.
///
/// Boundaries are kept, because type1v2 and iommufd refuse to bisect a mapping: what was mapped by
/// one call goes by one call.
#[derive(Debug, Clone, Default)]
pub struct Mapped {
    entries: RangeMap<Iova, Target>,
}

impl Mapped {
    /// How many mappings there are: each takes one entry of the host's budget.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All mappings in order of IOVA.
    pub fn iter(&self) -> impl Iterator<Item = Mapping> {
        self.entries.iter().map(mapping)
    }

    /// The mappings that share a page with `window`, whole, in order.
    pub fn overlapping(&self, window: PageRange<Iova>) -> impl Iterator<Item = Mapping> {
        self.entries.overlapping(window).map(mapping)
    }

    /// The mapping that translates `iova`.
    #[must_use]
    pub fn at(&self, iova: Iova) -> Option<Mapping> {
        self.entries.at(iova).map(mapping)
    }

    pub(crate) fn insert(&mut self, mapping: Mapping) -> Result<(), Overlap> {
        let target = Target::new(mapping.gpa.raw(), mapping.access);
        self.entries.insert(mapping.iova, target)
    }

    /// Removes the mappings inside `range`.
    pub(crate) fn take_within(&mut self, range: PageRange<Iova>) -> Vec<Mapping> {
        let mut taken = Vec::new();
        self.entries
            .take_within(range, |iova, target| taken.push(mapping((iova, target))));
        taken
    }
}
