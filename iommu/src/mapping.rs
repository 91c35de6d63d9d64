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
    /// Whether `next` goes on where this one stops, in both spaces and with the same access.
    pub(crate) fn continues_in(self, next: Self) -> bool {
        self.iova.end() == next.iova.start()
            && self.gpa.checked_add(self.iova.bytes()) == Some(next.gpa)
            && self.access == next.access
    }
}

/// A mapping's page and access in one word: a page address leaves twelve bits free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target(u64);

impl Target {
    fn new(gpa: Gpa, access: Access) -> Self {
        Self(
            gpa.raw()
                | match access {
                    Access::Read => 1,
                    Access::Write => 2,
                    Access::ReadWrite => 3,
                },
        )
    }

    fn mapping(self, iova: PageRange<Iova>) -> Mapping {
        Mapping {
            iova,
            gpa: Gpa::new(self.0 & !(PAGE_SIZE - 1)),
            access: match self.0 & (PAGE_SIZE - 1) {
                1 => Access::Read,
                2 => Access::Write,
                _ => Access::ReadWrite,
            },
        }
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
        self.entries
            .iter()
            .map(|(iova, target)| target.mapping(iova))
    }

    /// The mappings that share a page with `window`, whole, in order.
    pub fn overlapping(&self, window: PageRange<Iova>) -> impl Iterator<Item = Mapping> {
        self.entries
            .overlapping(window)
            .map(|(iova, target)| target.mapping(iova))
    }

    /// The mapping that translates `iova`.
    #[must_use]
    pub fn at(&self, iova: Iova) -> Option<Mapping> {
        self.entries
            .at(iova)
            .map(|(range, target)| target.mapping(range))
    }

    pub(crate) fn insert(&mut self, mapping: Mapping) -> Result<(), Overlap> {
        self.entries
            .insert(mapping.iova, Target::new(mapping.gpa, mapping.access))
    }

    /// Removes the mappings inside `range`.
    pub(crate) fn take_within(&mut self, range: PageRange<Iova>) -> Vec<Mapping> {
        self.entries
            .take_within(range)
            .into_iter()
            .map(|(iova, target)| target.mapping(iova))
            .collect()
    }
}
