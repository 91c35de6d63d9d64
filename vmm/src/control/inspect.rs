//! Page states and tables of a running VM, as answers.

use std::time::{Duration, Instant};

use iommu::space::{Difference, Snapshot};
use iommu::{Access, Gpa, Health, Iova, Mapping, PageRange, PageState, Table};

use super::protocol::{
    AccessName, DifferenceKind, MappingExtent, MappingList, PageStateName, StateExtent, StateList,
    TableDifference, TableHealth, TableMap, TableName, TableVerification,
};
use crate::host::facts::{Hex, PciAddress};

/// The most differences of a table that are listed.
const MOST_DIFFERENCES: usize = 256;

/// A part of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Only what ends above this address.
    pub(super) from: u64,
    /// At most so many.
    pub(super) limit: usize,
}

impl Part {
    /// The members of the part, and how many of the whole are left out above them.
    fn of<T>(self, all: impl Iterator<Item = T>, last: impl Fn(&T) -> u64) -> (Vec<T>, u64) {
        let mut all = all.filter(|member| last(member) >= self.from);
        let shown = all.by_ref().take(self.limit).collect();
        (shown, u64::try_from(all.count()).unwrap_or(u64::MAX))
    }
}

/// A table of a VM and the devices behind it.
pub(super) struct Seen<'a> {
    pub(super) devices: &'a [PciAddress],
    pub(super) snapshot: &'a Snapshot,
}

impl Seen<'_> {
    pub(super) fn map(&self, in_force: Table, part: Part) -> TableMap {
        TableMap {
            devices: self.devices.to_vec(),
            in_force: in_force.into(),
            t0: mappings(self.snapshot.derive(Table::T0), part),
            t1: mappings(self.snapshot.derive(Table::T1), part),
        }
    }

    pub(super) fn verify(&self) -> TableVerification {
        let snapshot = self.snapshot;
        let differences = snapshot.verify();
        let shown = differences.iter().take(MOST_DIFFERENCES);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        TableVerification {
            devices: self.devices.to_vec(),
            table: snapshot.table().into(),
            health: snapshot.health().into(),
            t0_extents: count(snapshot.derive(Table::T0).len()),
            t1_extents: count(snapshot.derive(Table::T1).len()),
            recorded: count(snapshot.recorded().len()),
            held: snapshot.holdings().map(|held| count(held.mapped.len())),
            counted: snapshot.counted().map(count),
            left_out: count(differences.len().saturating_sub(MOST_DIFFERENCES)),
            differences: shown.map(|difference| (*difference).into()).collect(),
        }
    }
}

impl TableVerification {
    /// Whether the table is as it must be, and in use.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty() && self.health == TableHealth::Sound
    }
}

pub(super) fn states(
    extents: impl Iterator<Item = (PageRange<Gpa>, PageState)>,
    part: Part,
) -> StateList {
    let (shown, left_out) = part.of(extents, |(range, _)| range.last().raw());
    let shown = shown.into_iter().map(|(range, state)| StateExtent {
        start: Hex(range.start().raw()),
        size: range.bytes(),
        state: state.into(),
    });
    StateList {
        extents: shown.collect(),
        left_out,
    }
}

fn mappings(all: Vec<Mapping>, part: Part) -> MappingList {
    let (shown, left_out) = part.of(all.into_iter(), |mapping| mapping.iova.last().raw());
    let shown = shown.into_iter().map(|mapping| MappingExtent {
        iova: Hex(mapping.iova.start().raw()),
        size: mapping.iova.bytes(),
        gpa: Hex(mapping.gpa.raw()),
        access: mapping.access.into(),
    });
    MappingList {
        extents: shown.collect(),
        left_out,
    }
}

impl From<Difference> for TableDifference {
    fn from(difference: Difference) -> Self {
        let at = |kind, iova: PageRange<Iova>, gpa: Option<Gpa>| Self {
            kind,
            iova: Some(Hex(iova.start().raw())),
            size: Some(iova.bytes()),
            gpa: gpa.map(|gpa| Hex(gpa.raw())),
        };
        let mapped = |kind, mapping: Mapping| at(kind, mapping.iova, Some(mapping.gpa));
        match difference {
            Difference::Missing(mapping) => mapped(DifferenceKind::Missing, mapping),
            Difference::Surplus(mapping) => mapped(DifferenceKind::Surplus, mapping),
            Difference::Unmirrored(mapping) => mapped(DifferenceKind::Unmirrored, mapping),
            Difference::Lost(iova) => at(DifferenceKind::Lost, iova, None),
            Difference::Leaked(iova) => at(DifferenceKind::Leaked, iova, None),
            Difference::Count { .. } => Self {
                kind: DifferenceKind::Count,
                iova: None,
                size: None,
                gpa: None,
            },
        }
    }
}

impl From<Table> for TableName {
    fn from(table: Table) -> Self {
        match table {
            Table::T0 => Self::T0,
            Table::T1 => Self::T1,
        }
    }
}

impl From<Health> for TableHealth {
    fn from(health: Health) -> Self {
        match health {
            Health::Sound => Self::Sound,
            Health::Quarantined => Self::Quarantined,
        }
    }
}

impl From<PageState> for PageStateName {
    fn from(state: PageState) -> Self {
        match state {
            PageState::Private => Self::Private,
            PageState::Shared => Self::Shared,
            PageState::Converting => Self::Converting,
            PageState::Quarantined => Self::Quarantined,
        }
    }
}

impl From<Access> for AccessName {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
            Access::ReadWrite => Self::ReadWrite,
        }
    }
}

/// Runs `work` and says how long it took.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}
