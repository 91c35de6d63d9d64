//! An ordered map from page ranges to values, kept by extent.
//!
//! Two disciplines share it. [`RangeMap::assign`] splits and merges: what counts is the value of each
//! page. [`RangeMap::insert`] and [`RangeMap::take_within`] keep extents whole: their boundaries are
//! part of the record, as with mappings that a host call can only undo as it made them.

use std::collections::BTreeMap;

use crate::addr::{Address, PageRange};

/// Values of disjoint page ranges. Each operation costs `O(log n)` in extents, plus those it visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeMap<A, V> {
    /// By first address; never overlapping.
    extents: BTreeMap<A, Extent<A, V>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent<A, V> {
    end: A,
    value: V,
}

/// A new extent would have overlapped one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("overlaps an extent that is already there")]
pub struct Overlap;

impl<A, V> Default for RangeMap<A, V> {
    fn default() -> Self {
        Self {
            extents: BTreeMap::new(),
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
        self.extents.is_empty()
    }

    /// The extent that holds `address`.
    #[must_use]
    pub fn at(&self, address: A) -> Option<(PageRange<A>, V)> {
        let (&start, extent) = self.extents.range(..=address).next_back()?;
        (address < extent.end).then(|| (PageRange::between(start, extent.end), extent.value))
    }

    /// All extents, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (PageRange<A>, V)> {
        self.extents
            .iter()
            .map(|(&start, extent)| (PageRange::between(start, extent.end), extent.value))
    }

    /// The extents that share a page with `range`, whole, in order.
    pub fn overlapping(
        &self,
        range: PageRange<A>,
    ) -> impl Iterator<Item = (PageRange<A>, V)> + use<'_, A, V> {
        let first = self
            .at(range.start())
            .map_or(range.start(), |(extent, _)| extent.start());
        self.extents
            .range(first..range.end())
            .map(|(&start, extent)| (PageRange::between(start, extent.end), extent.value))
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
        if let Some((_, below)) = self.extents.range(..range.end()).next_back()
            && below.end > range.start()
        {
            return Err(Overlap);
        }
        let end = range.end();
        self.extents.insert(range.start(), Extent { end, value });
        Ok(())
    }

    /// Removes the extents that lie wholly inside `range` and returns them in order.
    pub fn take_within(&mut self, range: PageRange<A>) -> Vec<(PageRange<A>, V)> {
        let whole: Vec<_> = self
            .overlapping(range)
            .filter(|(extent, _)| range.covers(*extent))
            .collect();
        for (extent, _) in &whole {
            self.extents.remove(&extent.start());
        }
        whole
    }

    /// Gives every page of `range` this value: cuts the extents that stick out, and merges with
    /// neighbours of equal value.
    pub fn assign(&mut self, range: PageRange<A>, value: V) {
        let (mut start, mut end) = (range.start(), range.end());
        if let Some((&left, below)) = self.extents.range_mut(..start).next_back()
            && below.end >= start
        {
            if below.value == value {
                if below.end >= end {
                    return;
                }
                start = left;
            } else if below.end > start {
                let cut = *below;
                below.end = start;
                if cut.end > end {
                    self.extents.insert(end, cut);
                }
            }
        }
        while let Some((&inner, &extent)) =
            self.extents.range(range.start()..range.end()).next_back()
        {
            self.extents.remove(&inner);
            if extent.end > range.end() {
                if extent.value == value {
                    end = extent.end;
                } else {
                    self.extents.insert(range.end(), extent);
                }
            }
        }
        if let Some(right) = self.extents.get(&end)
            && right.value == value
        {
            let merged = right.end;
            self.extents.remove(&end);
            end = merged;
        }
        self.extents.insert(start, Extent { end, value });
    }
}

#[cfg(test)]
mod tests;
