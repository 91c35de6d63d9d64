//! The invariants, derived anew from nothing but page states and the guest's translation.

use super::{AddressSpace, DmaTable, Health, TableId};
use crate::addr::PageRange;
use crate::mapping::{Mapping, joined};
use crate::page_state::PageState;
use crate::table::HostTable;
use crate::view::{PrivatePages, Table, desired};

/// A broken promise: a bug in this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A table lets devices reach something else than it must.
    #[error("{table} differs from what it must hold at {at}")]
    Differs {
        /// The table.
        table: TableId,
        /// The first mapping, held or missing, that is wrong.
        at: Mapping,
    },
    /// A table reaches a page that its devices must not reach.
    #[error("{table} reaches a page that is out of its reach: {at}")]
    Exposed {
        /// The table.
        table: TableId,
        /// The mapping.
        at: Mapping,
    },
    /// A table maps a reserved window.
    #[error("{table} maps a reserved window: {at}")]
    Reserved {
        /// The table.
        table: TableId,
        /// The mapping.
        at: Mapping,
    },
    /// A table maps beyond what its devices can address.
    #[error("{table} maps beyond its reach: {at}")]
    OutOfReach {
        /// The table.
        table: TableId,
        /// The mapping.
        at: Mapping,
    },
}

impl<T: DmaTable> AddressSpace<T> {
    /// Derives every table from scratch and compares it with the record of what is mapped. Costs
    /// time in proportion to all extents.
    ///
    /// # Errors
    /// The first violation, which is a bug.
    pub fn check(&self) -> Result<(), Violation> {
        self.tables
            .iter()
            .try_for_each(|(&id, table)| self.check_table(id, table))
    }

    fn check_table(&self, id: TableId, table: &HostTable<T>) -> Result<(), Violation> {
        for at in table.mapped.iter() {
            if table.spec.reserved.conflict(at.iova).is_some() {
                return Err(Violation::Reserved { table: id, at });
            }
            if at.iova.last() > table.spec.reach {
                return Err(Violation::OutOfReach { table: id, at });
            }
            if !self.may_reach(table, at) {
                return Err(Violation::Exposed { table: id, at });
            }
        }
        if table.health == Health::Quarantined {
            return Ok(());
        }
        let naming = (self.alias, self.trusted);
        let view = table.view(self.domain_of(table), naming, self.states.now());
        let wanted = joined(desired(view, PageRange::everything()).into_iter());
        let mut held = joined(table.mapped.iter());
        for at in wanted {
            match held.next() {
                Some(have) if have == at => {}
                Some(have) if have.iova < at.iova => {
                    return Err(Violation::Differs {
                        table: id,
                        at: have,
                    });
                }
                _ => return Err(Violation::Differs { table: id, at }),
            }
        }
        held.next()
            .map_or(Ok(()), |at| Err(Violation::Differs { table: id, at }))
    }

    /// Whether no page behind a mapping is private where that is out of reach, or on its way.
    fn may_reach(&self, table: &HostTable<T>, mapping: Mapping) -> bool {
        let Some(pages) = mapping.iova.rebased(mapping.gpa) else {
            return false;
        };
        let mut states = self.states.now().within(pages).map(|(_, state)| state);
        self.states.covers(pages)
            && states.all(|state| match state {
                PageState::Shared => true,
                PageState::Private => {
                    table.spec.table == Table::T1 && self.trusted.private == PrivatePages::Mappable
                }
                PageState::Converting => false,
                // Kept in the record where the host would not let go of it.
                PageState::Quarantined => table.health == Health::Quarantined,
            })
    }
}
