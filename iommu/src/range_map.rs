//! An ordered map from page ranges to values, kept by extent.
//!
//! Two disciplines share it. [`RangeMap::assign`] splits and merges: what counts is the value of each
//! page. [`RangeMap::insert`] and [`RangeMap::take_within`] keep extents whole: their boundaries are
//! part of the record, as with mappings that a host call can only undo as it made them.

mod chunks;

use self::chunks::{Chunks, Extent};
use crate::addr::{Address, PageRange};

/// Values of disjoint page ranges. Each operation costs `O(log n)` in extents, plus those it visits.
#[derive(Debug, Clone)]
pub struct RangeMap<A, V> {
    /// Never overlapping.
    extents: Chunks<A, V>,
}

/// A new extent would have overlapped one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("overlaps an extent that is already there")]
pub struct Overlap;

impl<A, V> Default for RangeMap<A, V> {
    fn default() -> Self {
        Self {
            extents: Chunks::default(),
        }
    }
}

impl<A: Address, V: Copy + Eq> RangeMap<A, V> {
    /// How many extents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extents.len()
    }

    /// Whether no page has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.len() == 0
    }

    /// The extent that holds `address`.
    #[must_use]
    pub fn at(&self, address: A) -> Option<(PageRange<A>, V)> {
        let below = self.extents.get(self.extents.at_or_below(address)?)?;
        (address < below.end).then(|| below.parts())
    }

    /// All extents, in order.
    pub fn iter(&self) -> impl Iterator<Item = (PageRange<A>, V)> + use<'_, A, V> {
        self.extents.iter_from(None).map(Extent::parts)
    }

    /// The extents that share a page with `range`, whole, in order.
    pub fn overlapping(
        &self,
        range: PageRange<A>,
    ) -> impl Iterator<Item = (PageRange<A>, V)> + use<'_, A, V> {
        let at = self.extents.at_or_below(range.start());
        self.extents
            .iter_from(at)
            // The one below the range may end before it.
            .skip_while(move |extent| extent.end <= range.start())
            .take_while(move |extent| extent.start < range.end())
            .map(Extent::parts)
    }

    /// The extents that share a page with `range`, cut to it, in order.
    pub fn within(
        &self,
        range: PageRange<A>,
    ) -> impl Iterator<Item = (PageRange<A>, V)> + use<'_, A, V> {
        self.overlapping(range)
            .filter_map(move |(extent, value)| Some((extent.intersection(range)?, value)))
    }

    /// Adds an extent as it is: neighbours of equal value stay apart.
    ///
    /// # Errors
    /// When a page of `range` already has a value; nothing is changed.
    pub fn insert(&mut self, range: PageRange<A>, value: V) -> Result<(), Overlap> {
        let at = self.extents.at_or_below(range.last());
        if let Some(below) = at.and_then(|at| self.extents.get(at))
            && below.end > range.start()
        {
            return Err(Overlap);
        }
        self.extents.insert_above(at, Extent::new(range, value));
        Ok(())
    }

    /// Removes the extents that lie wholly inside `range`, and hands each over in order.
    pub fn take_within(&mut self, range: PageRange<A>, mut each: impl FnMut(PageRange<A>, V)) {
        let mut sticking_out = None;
        self.extents.take(range.start(), range.end(), |extent| {
            let (whole, value) = extent.parts();
            if range.covers(whole) {
                each(whole, value);
            } else {
                sticking_out = Some(extent);
            }
        });
        if let Some(extent) = sticking_out {
            self.extents.insert(extent);
        }
    }

    /// Gives every page of `range` this value: cuts the extents that stick out, and merges with
    /// neighbours of equal value.
    pub fn assign(&mut self, range: PageRange<A>, value: V) {
        let around = self.extents.at_or_below(range.start());
        if let Some((at, around)) = around.and_then(|at| Some((at, self.extents.get(at)?)))
            && around.start < range.start()
            && around.end > range.end()
        {
            if around.value != value {
                self.extents.set_end(at, range.start());
                self.extents.insert(Extent::new(range, value));
                let start = range.end();
                self.extents.insert(Extent { start, ..around });
            }
            return;
        }
        let end = self.clear_upwards(range, value);
        let below = self.extents.at_or_below(range.start());
        if let Some((at, below)) = below.and_then(|at| Some((at, self.extents.get(at)?)))
            && below.end >= range.start()
        {
            if below.value == value {
                self.extents.set_end(at, end.max(below.end));
                return;
            }
            self.extents.set_end(at, range.start());
        }
        let start = range.start();
        self.extents.insert(Extent { start, end, value });
    }

    /// Removes the extents that begin in `range`, and the one beyond it when it has this value. What
    /// sticks out of the range stays, unless it has this value. Returns where the range would end if
    /// it were merged with what is gone.
    fn clear_upwards(&mut self, range: PageRange<A>, value: V) -> A {
        let end = range.end();
        let mut last = None;
        self.extents
            .take(range.start(), end, |extent| last = Some(extent));
        if let Some(last) = last.filter(|last| last.end > end) {
            if last.value == value {
                return last.end;
            }
            self.extents.insert(Extent { start: end, ..last });
            return end;
        }
        let right = self
            .extents
            .at_or_below(end)
            .and_then(|at| self.extents.get(at));
        match right {
            Some(right) if right.start == end && right.value == value => {
                self.extents.take(right.start, right.end, drop);
                right.end
            }
            _ => end,
        }
    }
}

impl<A: Address, V> Extent<A, V> {
    fn new(range: PageRange<A>, value: V) -> Self {
        Self {
            start: range.start(),
            end: range.end(),
            value,
        }
    }

    fn parts(self) -> (PageRange<A>, V) {
        (PageRange::between(self.start, self.end), self.value)
    }
}

#[cfg(test)]
mod tests;
