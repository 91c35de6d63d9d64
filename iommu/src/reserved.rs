//! IOVA windows that a DMA table must never map.

use crate::addr::{Iova, PageRange};
use crate::range_map::RangeMap;

/// Why a window is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Writes there are interrupt messages.
    Msi,
    /// The host's IOMMU or root complex keeps it for itself.
    Host,
}

/// Windows that no mapping may touch.
#[derive(Debug, Clone, Default)]
pub struct Reserved {
    windows: RangeMap<Iova, Reason>,
}

impl Reserved {
    /// These windows. They may overlap, as those of several devices behind one table do: where they
    /// do, the reason given last stands.
    pub fn new(windows: impl IntoIterator<Item = (PageRange<Iova>, Reason)>) -> Self {
        let mut reserved = Self::default();
        for (window, reason) in windows {
            reserved.windows.assign(window, reason);
        }
        reserved
    }

    /// These windows and one more, whose reason stands where they overlap.
    #[must_use]
    pub fn and(mut self, window: PageRange<Iova>, reason: Reason) -> Self {
        self.windows.assign(window, reason);
        self
    }

    /// The windows, in order.
    pub fn windows(&self) -> impl Iterator<Item = (PageRange<Iova>, Reason)> {
        self.windows.iter()
    }

    /// The first window that shares a page with `range`.
    #[must_use]
    pub fn conflict(&self, range: PageRange<Iova>) -> Option<(PageRange<Iova>, Reason)> {
        self.windows.overlapping(range).next()
    }

    /// What is left of `range` between the windows, in order.
    pub(crate) fn carve(
        &self,
        range: PageRange<Iova>,
    ) -> impl Iterator<Item = PageRange<Iova>> + use<'_> {
        let mut from = range.start();
        let end = PageRange::everything().end();
        self.windows
            .within(range)
            .map(|(window, _)| (window.start(), window.end()))
            .chain([(range.end(), end)])
            .filter_map(move |(stop, resume)| {
                let gap = PageRange::from_bounds(from, stop).ok();
                from = resume;
                gap
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange<Iova> {
        PageRange::from_bounds(Iova::new(start << 12), Iova::new(end << 12)).unwrap()
    }

    #[test]
    fn a_window_is_cut_out_of_what_it_overlaps() {
        let reserved = Reserved::new([(range(2, 3), Reason::Msi), (range(6, 9), Reason::Host)]);
        let carved = |start, end| reserved.carve(range(start, end)).collect::<Vec<_>>();
        assert_eq!(carved(0, 10), [range(0, 2), range(3, 6), range(9, 10)]);
        assert_eq!(carved(2, 7), [range(3, 6)]);
        assert_eq!(carved(6, 9), []);
        assert_eq!(carved(3, 6), [range(3, 6)]);
    }
}
