//! Edits of several tables that are made all or not at all.

use super::{AddressSpace, HostTable};
use crate::addr::{Iova, PageRange};
use crate::domain::{Binding, Domain};
use crate::edit::Edits;
use crate::page_state::StateView;
use crate::table::{DmaTable, Health, HostError, TableId, Undo};

/// Edits of one table.
pub(super) type Planned = (TableId, Edits);

/// What has been done to tables so far, in order.
pub(super) type Applied = Vec<(TableId, Undo)>;

/// Why edits were not made. Every table is as before, but for those that are quarantined.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) table: TableId,
    pub(super) source: HostError,
}

/// The host's limit on mappings is reached.
#[derive(Debug, thiserror::Error)]
#[error("the table would hold {entries} mappings, more than the host allows")]
pub(super) struct Full {
    entries: usize,
}

impl<T: DmaTable> AddressSpace<T> {
    /// What a table translates by.
    pub(super) fn domain_of(&self, table: &HostTable<T>) -> Domain<'_> {
        match table.spec.binding {
            Binding::Identity => Domain::Identity,
            Binding::Blocked => Domain::Blocked,
            Binding::Domain(id) => self
                .domains
                .get(&id)
                .map_or(Domain::Blocked, Domain::Translated),
        }
    }

    /// The edits after which one table is right in these windows.
    pub(super) fn plan_table(
        &self,
        table: &HostTable<T>,
        states: StateView<'_>,
        windows: impl IntoIterator<Item = PageRange<Iova>>,
    ) -> Edits {
        let view = table.view(self.domain_of(table), (self.alias, self.trusted), states);
        Edits::between(&table.mapped, view, windows)
    }

    /// Makes the edits of all tables, in order, and adds to `done` what undoes them.
    pub(super) fn apply(&mut self, planned: &[Planned], done: &mut Applied) -> Result<(), Failure> {
        for (id, edits) in planned {
            if let Some(table) = self.tables.get_mut(id) {
                let undo = check_room(table, edits).and_then(|()| table.apply(edits));
                done.push((*id, undo.map_err(|source| Failure { table: *id, source })?));
            }
        }
        Ok(())
    }

    /// Makes the edits of all tables, or of none.
    pub(super) fn commit(&mut self, planned: &[Planned]) -> Result<(), Failure> {
        let mut done = Applied::new();
        let result = self.apply(planned, &mut done);
        if result.is_err() {
            self.undo(done);
        }
        result
    }

    /// The first table that the host would not let hold what is planned for it.
    pub(super) fn find_full(&self, planned: &[Planned]) -> Result<(), Failure> {
        planned.iter().try_for_each(|(id, edits)| {
            let table = self
                .tables
                .get(id)
                .map_or(Ok(()), |table| check_room(table, edits));
            table.map_err(|source| Failure { table: *id, source })
        })
    }

    pub(super) fn undo(&mut self, done: Applied) {
        for (id, undo) in done.into_iter().rev() {
            if let Some(table) = self.tables.get_mut(&id) {
                table.undo(undo);
            }
        }
    }

    /// Whether only quarantined tables are left to edit.
    pub(super) fn are_quarantined(&self, planned: &[Planned]) -> bool {
        planned
            .iter()
            .all(|(id, _)| self.health(*id) == Some(Health::Quarantined))
    }

    /// Tables that were quarantined since this was last asked; for a twin, the table whose twin it is.
    pub(super) fn newly_quarantined(&mut self) -> Vec<TableId> {
        let mut fresh = Vec::new();
        for (&id, table) in &mut self.tables {
            let quarantined = table.health == Health::Quarantined;
            if quarantined && !std::mem::replace(&mut table.reported, true) {
                let mut twins = self.twins.iter();
                let first = twins.find(|(_, twin)| **twin == id);
                fresh.push(first.map_or(id, |(first, _)| *first));
            }
        }
        fresh.dedup();
        fresh
    }
}

fn check_room<T>(table: &HostTable<T>, edits: &Edits) -> Result<(), HostError> {
    let entries = edits.entries_after(table.mapped.len());
    let limit = table
        .spec
        .entry_limit
        .filter(|_| table.health == Health::Sound);
    match limit {
        Some(limit) if entries > limit => Err(HostError::without_effect(
            "adding a mapping",
            Full { entries },
        )),
        _ => Ok(()),
    }
}
