//! What a DMA table must hold.

use crate::addr::{Iova, PageRange};
use crate::alias::{Alias, Half};
use crate::domain::Domain;
use crate::mapping::Mapping;
use crate::page_state::{PageState, StateView, Visibility};
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
    /// Whether it may show a page in this form.
    #[must_use]
    pub const fn admits(self, form: Visibility) -> bool {
        match (self, form) {
            (Self::T0 | Self::T1, Visibility::Shared) | (Self::T1, Visibility::Private) => true,
            (Self::T0, Visibility::Private) => false,
        }
    }

    fn shows(self, half: Half, state: PageState) -> bool {
        match state {
            PageState::Private => half != Half::Shared && self.admits(Visibility::Private),
            PageState::Shared => half != Half::Private && self.admits(Visibility::Shared),
            PageState::Converting | PageState::Quarantined => false,
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
#[must_use]
pub fn desired(view: DmaView<'_>, window: PageRange<Iova>) -> Vec<Mapping> {
    let mut wanted = Vec::new();
    extend_with_desired(&mut wanted, view, window);
    wanted
}

/// Appends what [`desired`] returns.
pub(crate) fn extend_with_desired(
    wanted: &mut Vec<Mapping>,
    view: DmaView<'_>,
    window: PageRange<Iova>,
) {
    view.domain.visit(window, |translation| {
        let names = translation.names();
        for (half, pages) in names.into_iter().flat_map(|names| view.alias.pages(names)) {
            for (extent, state) in view.states.within(pages) {
                let name = half.name(view.alias, extent.start());
                let iova = translation.iova_of(name);
                let iova = iova.and_then(|iova| extent.rebased(iova));
                if let Some(iova) = iova.filter(|_| view.table.shows(half, state)) {
                    let gpa = extent.start();
                    let access = translation.access;
                    let whole = Mapping { iova, gpa, access };
                    let parts = view.reserved.carve(iova);
                    wanted.extend(parts.filter_map(|part| whole.cut(part)));
                }
            }
        }
    });
}
