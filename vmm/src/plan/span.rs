//! Sets of addresses: the plain numbers that the placement is computed with.
//!
//! Both guest-physical and IOVA numbers pass through here, in units that the property tests shrink;
//! [`super::VmPlan`] carries the typed result.

/// A non-empty, half-open range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    /// The range, or `None` when it is empty.
    pub(super) fn new(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    pub(super) fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }
}

/// A set of addresses, as ascending ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    /// The union of `ranges`.
    pub(super) fn union(ranges: impl IntoIterator<Item = Span>) -> Self {
        let mut sorted: Vec<Span> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut spans: Vec<Span> = Vec::with_capacity(sorted.len());
        for next in sorted {
            match spans.last_mut() {
                Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
                _ => spans.push(next),
            }
        }
        Self(spans)
    }

    pub(super) fn as_slice(&self) -> &[Span] {
        &self.0
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|span| span.bytes()).sum()
    }

    /// The addresses in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            both.extend(a.intersection(**b));
            if a.end < b.end {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both)
    }

    /// The addresses that are not in `hole`.
    pub(super) fn without(&self, hole: Span) -> Self {
        let around = |span: &Span| {
            [
                Span::new(span.start, span.end.min(hole.start)),
                Span::new(span.start.max(hole.end), span.end),
            ]
        };
        Self(self.0.iter().flat_map(around).flatten().collect())
    }

    /// How many ranges remain without the addresses in `hole`.
    pub(super) fn ranges_without(&self, hole: Span) -> usize {
        let remain = |span: &Span| {
            if span.overlaps(hole) {
                usize::from(span.start < hole.start) + usize::from(hole.end < span.end)
            } else {
                1
            }
        };
        self.0.iter().map(remain).sum()
    }

    /// The addresses in `window`, counted from its start.
    pub(super) fn seen_from(&self, window: Span) -> Self {
        let shifted = self.0.iter().filter_map(|span| {
            let part = span.intersection(window)?;
            Span::new(
                part.start.saturating_sub(window.start),
                part.end.saturating_sub(window.start),
            )
        });
        Self(shifted.collect())
    }

    /// Only the whole multiples of `granule`.
    pub(super) fn whole(&self, granule: u64) -> Self {
        let inner = self.0.iter().filter_map(|span| {
            Span::new(
                span.start.next_multiple_of(granule),
                align_down(span.end, granule),
            )
        });
        Self(inner.collect())
    }

    /// How many addresses of the set are in `window`.
    pub(super) fn bytes_in(&self, window: Span) -> u64 {
        let parts = self.0.iter().filter_map(|span| span.intersection(window));
        parts.map(Span::bytes).sum()
    }
}

/// The last multiple of `align` at or below `address`.
pub(super) fn align_down(address: u64, align: u64) -> u64 {
    address.saturating_sub(address % align)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span::new(start, end).unwrap()
    }

    #[test]
    fn a_union_merges_what_overlaps_or_touches() {
        let union = Spans::union([span(8, 9), span(0, 2), span(2, 4), span(3, 5)]);
        assert_eq!(union.as_slice(), [span(0, 5), span(8, 9)]);
    }

    #[test]
    fn cutting_a_hole_leaves_both_sides() {
        let set = Spans::union([span(0, 10), span(20, 30)]);
        assert_eq!(
            set.without(span(5, 25)).as_slice(),
            [span(0, 5), span(25, 30)]
        );
        assert_eq!(
            set.without(span(22, 23)).as_slice(),
            [span(0, 10), span(20, 22), span(23, 30)]
        );
        for hole in [span(5, 25), span(22, 23), span(12, 30), span(0, 40)] {
            assert_eq!(set.ranges_without(hole), set.without(hole).as_slice().len());
        }
    }

    #[test]
    fn an_intersection_holds_the_addresses_in_both() {
        let left = Spans::union([span(0, 10), span(20, 30)]);
        let right = Spans::union([span(5, 22), span(29, 40)]);
        assert_eq!(
            left.intersection(&right).as_slice(),
            [span(5, 10), span(20, 22), span(29, 30)]
        );
    }

    #[test]
    fn a_window_is_seen_from_its_start_in_whole_granules() {
        let set = Spans::union([span(3, 21), span(30, 33)]);
        let seen = set.seen_from(span(1, 32));
        assert_eq!(seen.as_slice(), [span(2, 20), span(29, 31)]);
        assert_eq!(seen.whole(4).as_slice(), [span(4, 20)]);
    }
}
