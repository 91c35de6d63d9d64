//! Giving a table another role or another domain.

use super::AddressSpace;
use crate::addr::{Iova, PageRange};
use crate::domain::{Binding, DomainId};
use crate::table::{DmaTable, Health, HostError, TableId};
use crate::view::Table;

/// Why a table was not redirected.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// There is no such table.
    #[error("there is no {0}")]
    NoTable(TableId),
    /// There is no such domain.
    #[error("there is no {0}")]
    NoDomain(DomainId),
    /// The table is out of use, and would have to reach more than it does.
    #[error("{0} is quarantined")]
    Quarantined(TableId),
    /// The domain translates addresses that the table must not map or cannot reach.
    #[error("{table} cannot translate {iova}")]
    Unsuitable {
        /// The table.
        table: TableId,
        /// The first range that it cannot translate.
        iova: PageRange<Iova>,
    },
    /// A host call failed; the table is as before.
    #[error("{table} stays as it was")]
    Refused {
        /// The table.
        table: TableId,
        /// The call that failed.
        source: HostError,
    },
    /// A host call failed and could not be undone: the table is quarantined, and as it may hold more
    /// than T0 does, it counts as T1 if that is what it was or was to become.
    #[error("{table} is quarantined")]
    Damaged {
        /// The table.
        table: TableId,
        /// The call that failed first.
        source: HostError,
    },
}

impl<T: DmaTable> AddressSpace<T> {
    /// Makes a table the other one of its domain's two, in place: accepting the device behind it adds
    /// the private pages, and taking the acceptance back removes them. Shared pages are not touched.
    ///
    /// # Errors
    /// [`RedirectError`] says whether the table is as before, or out of use.
    pub fn switch(&mut self, id: TableId, to: Table) -> Result<(), RedirectError> {
        let table = self.tables.get(&id).ok_or(RedirectError::NoTable(id))?;
        if table.health == Health::Quarantined && to == Table::T1 {
            return Err(RedirectError::Quarantined(id));
        }
        let binding = table.spec.binding;
        self.redirect(id, &[(id, to)], binding)
    }

    /// Puts the devices behind a table into another domain: what both translate alike stays mapped. A
    /// twin of the table comes along.
    ///
    /// # Errors
    /// [`RedirectError`] says whether the table is as before, or out of use.
    pub fn bind(&mut self, id: TableId, to: Binding) -> Result<(), RedirectError> {
        let mut changes = Vec::with_capacity(2);
        for id in [Some(id), self.twins.get(&id).copied()]
            .into_iter()
            .flatten()
        {
            let table = self.tables.get(&id).ok_or(RedirectError::NoTable(id))?;
            if table.health == Health::Quarantined && to != Binding::Blocked {
                return Err(RedirectError::Quarantined(id));
            }
            if let Binding::Domain(domain) = to {
                let map = self.domains.get(&domain);
                let map = map.ok_or(RedirectError::NoDomain(domain))?;
                let suits = table.spec.suits_all(map);
                suits.map_err(|iova| RedirectError::Unsuitable { table: id, iova })?;
            }
            changes.push((id, table.spec.table));
        }
        self.redirect(id, &changes, to)
    }

    /// Gives tables roles and a binding, all of them or none; errors name `id`.
    fn redirect(
        &mut self,
        id: TableId,
        changes: &[(TableId, Table)],
        binding: Binding,
    ) -> Result<(), RedirectError> {
        let mut before = Vec::with_capacity(changes.len());
        for &(table, role) in changes {
            let was = self.set_direction(table, role, binding)?;
            before.push((table, role, was));
        }
        let result = self.follow(id, changes);
        let damaged = matches!(result, Err(RedirectError::Damaged { .. }));
        if result.is_err() {
            for (table, role, was) in before {
                // Private pages may be left in a damaged table, so it is no T0.
                let role = if damaged { role.max(was.0) } else { was.0 };
                self.set_direction(table, role, was.1)?;
            }
        }
        result
    }

    /// Has tables hold what their directions say.
    fn follow(&mut self, id: TableId, changes: &[(TableId, Table)]) -> Result<(), RedirectError> {
        let mut planned = Vec::with_capacity(changes.len());
        for (changed, _) in changes {
            let table = self.tables.get(changed);
            let table = table.ok_or(RedirectError::NoTable(*changed))?;
            let edits = self.plan_table(table, self.states.now(), [PageRange::everything()]);
            let reach = table.spec.reach;
            let mut maps = edits.maps().iter();
            if let Some(beyond) = maps.find(|mapping| mapping.iova.last() > reach) {
                let iova = beyond.iova;
                return Err(RedirectError::Unsuitable { table: id, iova });
            }
            planned.push((*changed, edits));
        }
        self.commit(&planned).map_err(|failure| {
            let source = failure.source;
            match self.newly_quarantined().is_empty() {
                true => RedirectError::Refused { table: id, source },
                false => RedirectError::Damaged { table: id, source },
            }
        })
    }

    fn set_direction(
        &mut self,
        id: TableId,
        role: Table,
        binding: Binding,
    ) -> Result<(Table, Binding), RedirectError> {
        let table = self.tables.get_mut(&id).ok_or(RedirectError::NoTable(id))?;
        let spec = &mut table.spec;
        let role = std::mem::replace(&mut spec.table, role);
        let binding = std::mem::replace(&mut spec.binding, binding);
        Ok((role, binding))
    }
}
