//! Holding a table against what it must hold, and against what the host says that it holds.
//!
//! ```text
//!   under the owner's lock: snapshot            without it: verify
//!   states, translation, record, host    ─►     desired(T0), desired(T1) from scratch
//!                                               desired(in force) = record = what the host holds
//! ```
//! A copy is quick, because it moves chunks and derives nothing: conversions wait for no comparison.

use super::{AddressSpace, DmaTable, Health, TableId};
use crate::addr::{Gpa, Iova, PageRange};
use crate::alias::Alias;
use crate::domain::{Binding, Domain, GuestMap};
use crate::mapping::{Access, Mapped, Mapping, joined};
use crate::page_state::PageStates;
use crate::table::{Holdings, TableSpec};
use crate::view::{DmaView, Table, Trusted, desired};

/// A table and everything that decides what it holds, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    alias: Alias,
    trusted: Trusted,
    states: PageStates,
    /// The guest's translation, where the table is bound to a domain.
    map: Option<GuestMap>,
    spec: TableSpec,
    recorded: Mapped,
    health: Health,
    holdings: Option<Holdings>,
}

/// Where a table is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Its devices must reach this, and do not.
    Missing(Mapping),
    /// Its devices reach this, and must not.
    Surplus(Mapping),
    /// The host was told to map this and does not hold it.
    Lost(PageRange<Iova>),
    /// The host holds this, and nobody knows why.
    Leaked(PageRange<Iova>),
    /// The host counts another number of mappings than were made.
    Count {
        /// By the host.
        host: usize,
        /// By the record.
        recorded: usize,
    },
    /// T0 shows a shared page that T1 does not show: DMA to it would fault after the device is
    /// accepted.
    Unmirrored(Mapping),
}

impl<T: DmaTable> AddressSpace<T> {
    /// Copies a table with all that decides its content. Costs time in proportion to all extents, a
    /// few nanoseconds each.
    #[must_use]
    pub fn snapshot(&self, id: TableId) -> Option<Snapshot> {
        let table = self.tables.get(&id)?;
        let map = match table.spec.binding {
            Binding::Domain(domain) => self.domains.get(&domain).cloned(),
            Binding::Identity | Binding::Blocked => None,
        };
        Some(Snapshot {
            alias: self.alias,
            trusted: self.trusted,
            states: self.states.clone(),
            map,
            spec: table.spec.clone(),
            recorded: table.mapped.clone(),
            health: table.health,
            holdings: table.host.holdings(),
        })
    }
}

impl Snapshot {
    /// The states of the pages.
    #[must_use]
    pub fn states(&self) -> &PageStates {
        &self.states
    }

    /// Which of its domain's two tables it is.
    #[must_use]
    pub fn table(&self) -> Table {
        self.spec.table
    }

    /// What the table translates by.
    #[must_use]
    pub fn binding(&self) -> Binding {
        self.spec.binding
    }

    /// Whether the record can be trusted.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// What was mapped and not taken away again.
    #[must_use]
    pub fn recorded(&self) -> &Mapped {
        &self.recorded
    }

    /// What the host says that it holds, where it tells.
    #[must_use]
    pub fn holdings(&self) -> Option<&Holdings> {
        self.holdings.as_ref()
    }

    /// The mappings that the host counts, where it does.
    #[must_use]
    pub fn counted(&self) -> Option<usize> {
        let left = self.holdings.as_ref()?.entries_left?;
        self.spec.entry_limit?.checked_sub(left)
    }

    /// What one of the two tables must hold, from nothing but page states and the guest's
    /// translation; mappings that go on in each other are one.
    #[must_use]
    pub fn derive(&self, table: Table) -> Vec<Mapping> {
        let domain = match (self.spec.binding, &self.map) {
            (Binding::Identity, _) => Domain::Identity,
            (Binding::Domain(_), Some(map)) => Domain::Translated(map),
            (Binding::Blocked, _) | (Binding::Domain(_), None) => Domain::Blocked,
        };
        let view = DmaView {
            domain,
            alias: self.alias,
            trusted: self.trusted,
            states: self.states.now(),
            table,
            reserved: &self.spec.reserved,
        };
        joined(desired(view, PageRange::everything()).into_iter()).collect()
    }

    /// The mappings of `t0` by the names that an accepted device has for the same pages.
    fn mirrored(&self, t0: &[Mapping]) -> Vec<Mapping> {
        let bit = match (self.trusted.shared, self.spec.binding) {
            (Some(bit), Binding::Identity) => bit.mask(),
            // What the guest translates it translates for both.
            (None, _) | (_, Binding::Blocked | Binding::Domain(_)) => 0,
        };
        let mappings = t0.iter().filter_map(|mapping| {
            let start = Iova::new(mapping.iova.start().raw() | bit);
            let iova = mapping.iova.rebased(start)?;
            Some(Mapping { iova, ..*mapping })
        });
        mappings.collect()
    }

    /// Everything that is not as it should be; nothing, unless there is a bug. A table that is out of
    /// use is only held against the host.
    #[must_use]
    pub fn verify(&self) -> Vec<Difference> {
        let recorded: Vec<Mapping> = joined(self.recorded.iter()).collect();
        let (t0, t1) = (self.derive(Table::T0), self.derive(Table::T1));
        let mut differences = Vec::new();
        if self.health == Health::Sound {
            let wanted = match self.spec.table {
                Table::T0 => &t0,
                Table::T1 => &t1,
            };
            let missing = lacking(wanted, &recorded).into_iter();
            differences.extend(missing.map(Difference::Missing));
            let surplus = lacking(&recorded, wanted).into_iter();
            differences.extend(surplus.map(Difference::Surplus));
        }
        let unmirrored = lacking(&self.mirrored(&t0), &t1).into_iter();
        differences.extend(unmirrored.map(Difference::Unmirrored));
        if let Some(holdings) = &self.holdings {
            let bare = |range: PageRange<Iova>| Mapping {
                iova: range,
                gpa: Gpa::new(range.start().raw()),
                access: Access::ReadWrite,
            };
            let held: Vec<Mapping> =
                joined(holdings.mapped.iter().map(|range| bare(*range))).collect();
            let recorded: Vec<Mapping> =
                joined(recorded.iter().map(|mapping| bare(mapping.iova))).collect();
            let lost = lacking(&recorded, &held).into_iter();
            differences.extend(lost.map(|mapping| Difference::Lost(mapping.iova)));
            let leaked = lacking(&held, &recorded).into_iter();
            differences.extend(leaked.map(|mapping| Difference::Leaked(mapping.iova)));
        }
        let recorded = self.recorded.len();
        let counted = self.counted().filter(|host| *host != recorded);
        differences.extend(counted.map(|host| Difference::Count { host, recorded }));
        differences
    }
}

/// The parts of `wanted` that `held` does not translate in the same way; both ascend.
fn lacking(wanted: &[Mapping], held: &[Mapping]) -> Vec<Mapping> {
    let mut lacking = Vec::new();
    let mut held = held;
    for whole in wanted {
        // What ends before this one matters to no later one.
        while let [first, later @ ..] = held
            && first.iova.end() <= whole.iova.start()
        {
            held = later;
        }
        let mut rest = Some(*whole);
        for have in held {
            let Some(left) = rest.filter(|left| have.iova.start() < left.iova.end()) else {
                break;
            };
            if same_translation(left, *have) {
                let before = PageRange::from_bounds(left.iova.start(), have.iova.start());
                lacking.extend(before.ok().and_then(|before| left.cut(before)));
                let after = PageRange::from_bounds(have.iova.end(), left.iova.end());
                rest = after.ok().and_then(|after| left.cut(after));
            }
        }
        lacking.extend(rest);
    }
    lacking
}

fn same_translation(one: Mapping, other: Mapping) -> bool {
    let shift = |mapping: Mapping| mapping.iova.start().raw().wrapping_sub(mapping.gpa.raw());
    shift(one) == shift(other) && one.access == other.access
}

#[cfg(test)]
mod tests;
