//! What each page of guest DRAM is: the truth that stage 2 and both DMA tables follow.
//!
//! ```text
//!              begin                 commit
//!   Private ──────────► Converting ──────────► Shared        (and the same from Shared to Private)
//!      ▲                    │  │
//!      └────── abort ───────┘  └── condemn ──► Quarantined
//! ```

use std::fmt;

use crate::addr::{Gpa, PageRange};
use crate::range_map::{Overlap, RangeMap};

/// The state of a guest page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageState {
    /// Only the guest, and a device that it has accepted, may reach it.
    Private,
    /// The host and every assigned device may reach it.
    Shared,
    /// On its way from one to the other: in no DMA table.
    Converting,
    /// A conversion failed beyond its point of no return: in no DMA table until the VM is reset.
    Quarantined,
}

/// The two states that a guest can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// See [`PageState::Private`].
    Private,
    /// See [`PageState::Shared`].
    Shared,
}

impl Visibility {
    /// The one that this one is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Private => Self::Shared,
            Self::Shared => Self::Private,
        }
    }
}

impl From<Visibility> for PageState {
    fn from(visibility: Visibility) -> Self {
        match visibility {
            Visibility::Private => Self::Private,
            Visibility::Shared => Self::Shared,
        }
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "private",
            Self::Shared => "shared",
        })
    }
}

/// The state of every page of DRAM, by extent.
///
/// Conversions are serialised, so at most one range is Converting. It is kept beside the extents:
/// beginning and aborting a conversion leave no trace in them.
#[derive(Debug, Clone)]
pub struct PageStates {
    /// DRAM, ascending, neighbours merged.
    dram: Vec<PageRange<Gpa>>,
    /// Covers exactly `dram`.
    extents: RangeMap<Gpa, PageState>,
    converting: Option<PageRange<Gpa>>,
}

impl PageStates {
    /// Every page of these DRAM ranges in one state.
    ///
    /// # Errors
    /// When two ranges overlap.
    pub fn new(
        dram: impl IntoIterator<Item = PageRange<Gpa>>,
        initial: Visibility,
    ) -> Result<Self, Overlap> {
        let mut ranges = RangeMap::default();
        for range in dram {
            ranges.insert(range, ())?;
        }
        let mut extents = RangeMap::default();
        for (range, ()) in ranges.iter() {
            extents.assign(range, PageState::from(initial));
        }
        Ok(Self {
            dram: extents.iter().map(|(range, _)| range).collect(),
            extents,
            converting: None,
        })
    }

    /// The DRAM ranges, ascending; ranges that touch are one.
    #[must_use]
    pub fn dram(&self) -> &[PageRange<Gpa>] {
        &self.dram
    }

    /// Whether every page of `range` is DRAM.
    #[must_use]
    pub fn covers(&self, range: PageRange<Gpa>) -> bool {
        let above = self
            .dram
            .partition_point(|dram| dram.start() <= range.start());
        above
            .checked_sub(1)
            .and_then(|below| self.dram.get(below))
            .is_some_and(|dram| dram.covers(range))
    }

    /// The state of the page that holds `gpa`, or `None` where there is no DRAM.
    #[must_use]
    pub fn at(&self, gpa: Gpa) -> Option<PageState> {
        if self.converting.is_some_and(|range| range.contains(gpa)) {
            return Some(PageState::Converting);
        }
        self.extents.at(gpa).map(|(_, state)| state)
    }

    /// The pages around `gpa` that have its state in common, and the state. `None` where there is no DRAM,
    /// and where a conversion is under way among them.
    #[must_use]
    pub fn extent(&self, gpa: Gpa) -> Option<(PageRange<Gpa>, PageState)> {
        let found = self.extents.at(gpa);
        let converting = self.converting;
        found.filter(|(extent, _)| !converting.is_some_and(|range| range.overlaps(*extent)))
    }

    /// How many extents the states fall into.
    #[must_use]
    pub fn extent_count(&self) -> usize {
        self.extents.len()
    }

    /// All extents in order, as they were before a conversion that is under way.
    pub fn settled(&self) -> impl Iterator<Item = (PageRange<Gpa>, PageState)> {
        self.extents.iter()
    }

    /// The part of the first extent at or above `range`'s start that lies in `range`.
    pub(crate) fn first_settled(
        &self,
        range: PageRange<Gpa>,
    ) -> Option<(PageRange<Gpa>, PageState)> {
        self.extents.within(range).next()
    }

    /// The states as they are now.
    #[must_use]
    pub fn now(&self) -> StateView<'_> {
        StateView {
            states: self,
            overlay: self.converting.map(|range| (range, PageState::Converting)),
        }
    }

    /// The states as they will be once the conversion under way has ended in `state`.
    pub(crate) fn after(&self, state: Visibility) -> StateView<'_> {
        StateView {
            states: self,
            overlay: self.converting.map(|range| (range, state.into())),
        }
    }

    /// Marks `range` as Converting.
    pub(crate) fn begin(&mut self, range: PageRange<Gpa>) {
        debug_assert!(self.covers(range) && self.converting.is_none());
        self.converting = Some(range);
    }

    /// Ends the conversion under way: its range has its old state again.
    pub(crate) fn abort(&mut self) {
        self.converting = None;
    }

    /// Ends the conversion under way: its range has its new state.
    pub(crate) fn commit(&mut self, state: Visibility) {
        if let Some(range) = self.converting.take() {
            self.extents.assign(range, state.into());
        }
    }

    /// Ends the conversion under way in failure: its range is out of use.
    pub(crate) fn condemn(&mut self) {
        if let Some(range) = self.converting.take() {
            self.extents.assign(range, PageState::Quarantined);
        }
    }
}

/// Page states with at most one range seen in another state than the recorded one.
#[derive(Debug, Clone, Copy)]
pub struct StateView<'a> {
    states: &'a PageStates,
    overlay: Option<(PageRange<Gpa>, PageState)>,
}

impl<'a> StateView<'a> {
    /// The extents of DRAM in `range`, cut to it, in order.
    pub fn within(
        self,
        range: PageRange<Gpa>,
    ) -> impl Iterator<Item = (PageRange<Gpa>, PageState)> + use<'a> {
        let overlay = self.overlay;
        let overlay = overlay.and_then(|(over, state)| Some((over.intersection(range)?, state)));
        let (below, above) = match overlay {
            None => (Some(range), None),
            Some((over, _)) => (
                PageRange::from_bounds(range.start(), over.start()).ok(),
                PageRange::from_bounds(over.end(), range.end()).ok(),
            ),
        };
        let extents = &self.states.extents;
        let below = below.into_iter().flat_map(|part| extents.within(part));
        let above = above.into_iter().flat_map(|part| extents.within(part));
        below.chain(overlay).chain(above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange<Gpa> {
        PageRange::from_bounds(Gpa::new(start << 12), Gpa::new(end << 12)).unwrap()
    }

    #[test]
    fn ranges_that_touch_are_one_stretch_of_dram() {
        let states = PageStates::new(
            [range(4, 8), range(0, 4), range(16, 20)],
            Visibility::Private,
        )
        .unwrap();
        assert_eq!(states.dram(), [range(0, 8), range(16, 20)]);
        assert!(states.covers(range(2, 6)));
        assert!(!states.covers(range(6, 9)));
        assert!(!states.covers(range(6, 17)));
        assert!(PageStates::new([range(0, 4), range(3, 5)], Visibility::Private).is_err());
    }

    #[test]
    fn a_conversion_shows_and_leaves_no_trace_when_aborted() {
        let mut states = PageStates::new([range(0, 8)], Visibility::Shared).unwrap();
        let all = (range(0, 8), PageState::Shared);
        assert_eq!(states.extent(Gpa::new(0x7fff)), Some(all));
        assert_eq!(states.extent(Gpa::new(0x8000)), None);
        states.begin(range(2, 4));
        assert_eq!(states.at(Gpa::new(0x2000)), Some(PageState::Converting));
        assert_eq!(states.extent(Gpa::new(0x7000)), None);
        let seen: Vec<_> = states.now().within(range(1, 8)).collect();
        assert_eq!(
            seen,
            [
                (range(1, 2), PageState::Shared),
                (range(2, 4), PageState::Converting),
                (range(4, 8), PageState::Shared),
            ]
        );
        states.abort();
        assert_eq!(states.extent_count(), 1);
        states.begin(range(2, 4));
        states.commit(Visibility::Private);
        assert_eq!(states.at(Gpa::new(0x3000)), Some(PageState::Private));
        assert_eq!(states.extent_count(), 3);
        let converted = (range(2, 4), PageState::Private);
        assert_eq!(states.extent(Gpa::new(0x2000)), Some(converted));
    }
}
