//! What a DMA table must hold.

use crate::addr::{Iova, PageRange};
use crate::alias::{Alias, Half};
use crate::domain::{Domain, Translation};
use crate::mapping::Mapping;
use crate::page_state::{PageState, StateView};
use crate::reserved::Reserved;

/// The two tables of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// In force while a device's interface is not accepted: shared pages only.
    T0,
    /// In force while it is in RUN: the same shared pages, and the private ones.
    T1,
}

impl Table {
    fn admits(self, half: Half, state: PageState) -> bool {
        half.reaches(state)
            && match self {
                Self::T0 => state == PageState::Shared,
                Self::T1 => true,
            }
    }
}

/// All that decides the content of a table.
#[derive(Debug, Clone, Copy)]
pub struct DmaView<'a> {
    /// The guest's translation.
    pub domain: Domain<'a>,
    /// How the guest names shared pages.
    pub alias: Alias,
    /// The state of the pages behind the translation.
    pub states: StateView<'a>,
    /// Which of the two tables.
    pub table: Table,
    /// The windows that stay free.
    pub reserved: &'a Reserved,
}

/// The mappings that a table must hold in `window`, in order of IOVA and cut to it.
///
/// Both tables of a domain are this function and nothing else: every edit is the difference between
/// its values before and after an event. Each mapping covers pages of one state, as pages of
/// different states may have different memory behind them.
pub fn desired(view: DmaView<'_>, window: PageRange<Iova>) -> impl Iterator<Item = Mapping> {
    view.domain.within(window).flat_map(move |translation| {
        let Translation { iova, access, .. } = translation;
        let names = translation.names().into_iter();
        let pages = names.flat_map(move |names| view.alias.pages(names));
        let mut offset = 0;
        pages.flat_map(move |(half, pages)| {
            // Halves are adjacent, so each begins in the IOVAs where the one below it ended.
            let base = iova.start().checked_add(offset);
            offset = pages.bytes();
            let extents = view.states.within(pages);
            extents
                .filter(move |(_, state)| view.table.admits(half, *state))
                .filter_map(move |(extent, _)| {
                    let skipped = extent.start().offset_from(pages.start())?;
                    Some((extent, extent.rebased(base?.checked_add(skipped)?)?))
                })
                .flat_map(move |(extent, iova)| {
                    view.reserved.carve(iova).filter_map(move |part| {
                        let skipped = part.start().offset_from(iova.start())?;
                        Some(Mapping {
                            iova: part,
                            gpa: extent.start().checked_add(skipped)?,
                            access,
                        })
                    })
                })
        })
    })
}
