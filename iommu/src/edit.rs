//! The difference between what a table holds and what it must hold.

use crate::addr::{Gpa, Iova, PageRange};
use crate::mapping::{Mapped, Mapping};
use crate::view::{DmaView, extend_with_desired};

/// One change to a host table: one host call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Take away every mapping in the range. It begins and ends where mappings do, and has no hole.
    Unmap(PageRange<Iova>),
    /// Add one mapping where there is none.
    Map(Mapping),
}

/// Changes to one table, unmaps first.
///
/// A mapping of which only a part must go is taken away whole and its remains are mapped again,
/// because type1v2 and iommufd refuse to bisect a mapping. Between the two calls the remains are out
/// of reach of the device: DMA to them in that moment faults. A mapping made by one conversion is one
/// mapping, so sharing and unsharing the same range, as Linux does, never comes to this.
#[must_use = "a table that is not edited is wrong"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    unmaps: Vec<PageRange<Iova>>,
    maps: Vec<Mapping>,
    freed: usize,
}

impl Edits {
    /// What turns `mapped` into the table that `view` calls for, in each of these windows.
    ///
    /// The windows must not overlap. Mappings that are right already are left alone, whatever their
    /// boundaries.
    pub fn between(
        mapped: &Mapped,
        view: DmaView<'_>,
        windows: impl IntoIterator<Item = PageRange<Iova>>,
    ) -> Self {
        let mut edits = Self::default();
        for window in windows {
            edits.cover(mapped, view, window);
        }
        edits
    }

    /// What takes every mapping that reaches a page of `pages` out of `mapped`, wherever it lies.
    /// Costs time in proportion to all mappings.
    pub fn withdrawing(mapped: &Mapped, pages: PageRange<Gpa>) -> Self {
        let mut edits = Self::default();
        for mapping in mapped.iter().filter(|mapping| mapping.reaches(pages)) {
            edits.unmap(mapping);
        }
        edits
    }

    /// What empties `mapped`.
    pub fn clearing(mapped: &Mapped) -> Self {
        let mut edits = Self::default();
        mapped.iter().for_each(|mapping| edits.unmap(mapping));
        edits
    }

    fn cover(&mut self, mapped: &Mapped, view: DmaView<'_>, window: PageRange<Iova>) {
        let mut from = window.start();
        for have in mapped.overlapping(window) {
            self.fill(view, from, have.iova.start());
            from = have.iova.end();
            let known = self.maps.len();
            extend_with_desired(&mut self.maps, view, have.iova);
            if self.maps.get(known) == Some(&have) {
                self.maps.truncate(known);
            } else {
                self.unmap(have);
            }
        }
        self.fill(view, from, window.end());
    }

    /// Maps what is wanted where nothing is mapped.
    fn fill(&mut self, view: DmaView<'_>, start: Iova, end: Iova) {
        if let Ok(gap) = PageRange::from_bounds(start, end) {
            extend_with_desired(&mut self.maps, view, gap);
        }
    }

    fn unmap(&mut self, mapping: Mapping) {
        self.freed = self.freed.saturating_add(1);
        match self.unmaps.last_mut() {
            Some(last) if last.end() == mapping.iova.start() => {
                *last = PageRange::between(last.start(), mapping.iova.end());
            }
            _ => self.unmaps.push(mapping.iova),
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unmaps.is_empty() && self.maps.is_empty()
    }

    /// The ranges to unmap, which come first.
    #[must_use]
    pub fn unmaps(&self) -> &[PageRange<Iova>] {
        &self.unmaps
    }

    /// The mappings to add, which come last.
    #[must_use]
    pub fn maps(&self) -> &[Mapping] {
        &self.maps
    }

    /// All changes in the order in which they must be made.
    pub fn iter(&self) -> impl Iterator<Item = Edit> {
        let unmaps = self.unmaps.iter().copied().map(Edit::Unmap);
        unmaps.chain(self.maps.iter().copied().map(Edit::Map))
    }

    /// How many mappings the table holds afterwards when it holds `now` before.
    #[must_use]
    pub fn entries_after(&self, now: usize) -> usize {
        now.saturating_sub(self.freed)
            .saturating_add(self.maps.len())
    }
}
