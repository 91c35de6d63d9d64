//! What a DMA table must hold.

use crate::addr::{Iova, PageRange};
use crate::alias::{Alias, Half, SharedBit};
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
}

/// Whether T1 holds the shared pages too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mirror {
    /// As it must.
    #[default]
    Kept,
    /// It holds private pages only: what goes wrong then is what the mirror is for.
    #[cfg(debug_assertions)]
    LeftOut,
}

impl Mirror {
    /// Whether `table` holds shared pages.
    fn admits_shared(self, table: Table) -> bool {
        match (self, table) {
            (Self::Kept, Table::T0 | Table::T1) => true,
            #[cfg(debug_assertions)]
            (Self::LeftOut, table) => table == Table::T0,
        }
    }
}

/// Whether the IOMMUs of the host can map private pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivatePages {
    /// They can.
    #[default]
    Mappable,
    /// Their memory is where the host maps nothing from: T1 holds what T0 holds.
    OutOfReach,
}

impl PrivatePages {
    /// Whether `table` holds private pages.
    fn are_in(self, table: Table) -> bool {
        self == Self::Mappable && table.admits(Visibility::Private)
    }
}

/// What T1 holds, as far as VMs differ in that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Whether it holds the shared pages.
    pub mirror: Mirror,
    /// Whether it holds the private ones.
    pub private: PrivatePages,
    /// The bit by which an accepted device names shared pages, where one that is not accepted names them in
    /// place (TDX): T1 holds at `gpa | bit` what T0 holds at `gpa`.
    pub shared: Option<SharedBit>,
}

impl Trusted {
    /// How devices behind `table` name pages, where those of T0 do so by `alias`.
    pub(crate) fn alias(self, table: Table, alias: Alias) -> Alias {
        match (table, self.shared) {
            (Table::T1, Some(bit)) => Alias::SharedBit(bit),
            (Table::T0 | Table::T1, _) => alias,
        }
    }
}

/// All that decides the content of a table.
#[derive(Debug, Clone, Copy)]
pub struct DmaView<'a> {
    /// The guest's translation.
    pub domain: Domain<'a>,
    /// How devices that are not accepted name pages.
    pub alias: Alias,
    /// The state of the pages behind the translation.
    pub states: StateView<'a>,
    /// Which of the two tables.
    pub table: Table,
    /// What T1 holds.
    pub trusted: Trusted,
    /// The windows that stay free.
    pub reserved: &'a Reserved,
}

impl DmaView<'_> {
    fn shows(self, half: Half, state: PageState) -> bool {
        match state {
            PageState::Private => half != Half::Shared && self.trusted.private.are_in(self.table),
            PageState::Shared => {
                half != Half::Private && self.trusted.mirror.admits_shared(self.table)
            }
            PageState::Converting | PageState::Quarantined => false,
        }
    }
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
    let alias = view.trusted.alias(view.table, view.alias);
    view.domain.visit(window, |translation| {
        let names = translation.names();
        for (half, pages) in names.into_iter().flat_map(|names| alias.pages(names)) {
            for (extent, state) in view.states.within(pages) {
                let name = half.name(alias, extent.start());
                let iova = translation.iova_of(name);
                let iova = iova.and_then(|iova| extent.rebased(iova));
                if let Some(iova) = iova.filter(|_| view.shows(half, state)) {
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
