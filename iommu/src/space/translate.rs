//! The guest's domains: creating them, mapping and unmapping in them.

use super::AddressSpace;
use super::transaction::{Failure, Full, Planned};
use crate::addr::{Iova, PageRange};
use crate::domain::{Binding, DomainId, GuestMap, Splits, Translation};
use crate::table::{DmaTable, HostError, TableId};

/// Mappings that the guest may have in all its domains together; each costs memory of the host.
pub const MAX_TRANSLATIONS: usize = 1 << 18;

/// Why a domain is not created or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// It is there already.
    #[error("{0} exists already")]
    Exists(DomainId),
    /// It is not there.
    #[error("there is no {0}")]
    Missing(DomainId),
    /// A table still translates by it.
    #[error("{0} is in use")]
    InUse(DomainId),
}

/// Why nothing was mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// There is no such domain.
    #[error("there is no {0}")]
    NoDomain(DomainId),
    /// An IOVA is mapped already.
    #[error("{0} overlaps a mapping")]
    Overlap(PageRange<Iova>),
    /// The target is not all DRAM.
    #[error("{0} would not translate to DRAM")]
    NotDram(PageRange<Iova>),
    /// A table of the domain cannot translate the IOVAs: they are reserved or out of reach.
    #[error("{table} cannot translate {iova}")]
    Unsuitable {
        /// The table.
        table: TableId,
        /// The IOVAs.
        iova: PageRange<Iova>,
    },
    /// The guest has as many mappings as it may.
    #[error("the guest has {MAX_TRANSLATIONS} mappings")]
    TooMany,
    /// The host refuses.
    #[error(transparent)]
    Host(#[from] EditError),
}

/// Why nothing was unmapped.
#[derive(Debug, thiserror::Error)]
pub enum UnmapError {
    /// There is no such domain.
    #[error("there is no {0}")]
    NoDomain(DomainId),
    /// A mapping lies only partly in the range.
    #[error(transparent)]
    Splits(#[from] Splits),
    /// The host refuses.
    #[error(transparent)]
    Host(#[from] EditError),
}

/// A change of the guest's translation that the host's tables did not follow. The translation is as
/// before, and so is every table that is not named.
#[derive(Debug, thiserror::Error)]
#[error("{table} does not follow")]
pub struct EditError {
    /// The table that failed.
    pub table: TableId,
    /// The tables that are quarantined by this failure: their devices must be cut off and reset.
    pub quarantined: Vec<TableId>,
    /// The call that failed first.
    pub source: HostError,
}

impl EditError {
    /// Whether the host's limit on mappings is all that stands in the way.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        let source = std::error::Error::source(&self.source);
        source.is_some_and(|source| source.is::<Full>())
    }
}

impl<T: DmaTable> AddressSpace<T> {
    /// Adds an empty domain.
    ///
    /// # Errors
    /// When it is there already.
    pub fn create_domain(&mut self, id: DomainId) -> Result<(), DomainError> {
        if self.domains.contains_key(&id) {
            return Err(DomainError::Exists(id));
        }
        self.domains.insert(id, GuestMap::default());
        Ok(())
    }

    /// Forgets a domain and its mappings.
    ///
    /// # Errors
    /// When a table is bound to it, or when there is none.
    pub fn remove_domain(&mut self, id: DomainId) -> Result<(), DomainError> {
        let binding = Binding::Domain(id);
        if self
            .tables
            .values()
            .any(|table| table.spec.binding == binding)
        {
            return Err(DomainError::InUse(id));
        }
        let removed = self.domains.remove(&id);
        removed.map(drop).ok_or(DomainError::Missing(id))
    }

    /// The guest's mappings in a domain.
    #[must_use]
    pub fn domain(&self, id: DomainId) -> Option<&GuestMap> {
        self.domains.get(&id)
    }

    /// Adds a mapping to a domain. It has its effect in each table on the pages that the table may
    /// reach: now, and whenever a page of it becomes such.
    ///
    /// # Errors
    /// See [`MapError`]; nothing is mapped.
    pub fn map(&mut self, id: DomainId, mapping: Translation) -> Result<(), MapError> {
        self.check_target(id, mapping)?;
        let total: usize = self.domains.values().map(GuestMap::len).sum();
        let map = self.domains.get_mut(&id).ok_or(MapError::NoDomain(id))?;
        if total >= MAX_TRANSLATIONS {
            return Err(MapError::TooMany);
        }
        let iova = mapping.iova;
        map.insert(mapping).map_err(|_| MapError::Overlap(iova))?;
        let planned = self.plan_domain(id, iova);
        let Err(failure) = self.commit(&planned) else {
            debug_assert!(self.is_domain_settled(id, iova));
            return Ok(());
        };
        if let Some(map) = self.domains.get_mut(&id) {
            map.take_within(iova);
        }
        Err(MapError::Host(self.edit_error(failure)))
    }

    /// Removes the mappings of a domain that lie in `range`, and returns how many there were. Holes in
    /// it are no error.
    ///
    /// # Errors
    /// See [`UnmapError`]; nothing is unmapped.
    pub fn unmap(&mut self, id: DomainId, range: PageRange<Iova>) -> Result<usize, UnmapError> {
        let map = self.domains.get_mut(&id).ok_or(UnmapError::NoDomain(id))?;
        map.check_whole(range)?;
        let taken = map.take_within(range);
        let planned = self.plan_domain(id, range);
        let Err(failure) = self.commit(&planned) else {
            debug_assert!(self.is_domain_settled(id, range));
            return Ok(taken.len());
        };
        if let Some(map) = self.domains.get_mut(&id) {
            for mapping in taken {
                let restored = map.insert(mapping);
                debug_assert!(restored.is_ok(), "{mapping:?} has no place any more");
            }
        }
        Err(UnmapError::Host(self.edit_error(failure)))
    }

    fn check_target(&self, id: DomainId, mapping: Translation) -> Result<(), MapError> {
        let iova = mapping.iova;
        let Some(names) = mapping.names() else {
            return Err(MapError::NotDram(iova));
        };
        let mut dram = self
            .alias
            .pages(names)
            .filter(|(_, pages)| self.states.covers(*pages));
        // Halves are kept apart: no DRAM continues from one into the other.
        if dram
            .next()
            .is_none_or(|(_, pages)| pages.bytes() != iova.bytes())
        {
            return Err(MapError::NotDram(iova));
        }
        let binding = Binding::Domain(id);
        let mut bound = self
            .tables
            .iter()
            .filter(|(_, table)| table.spec.binding == binding);
        match bound.find(|(_, table)| !table.spec.suits(iova)) {
            Some((&table, _)) => Err(MapError::Unsuitable { table, iova }),
            None => Ok(()),
        }
    }

    /// The edits after which every table of a domain is right in `window`.
    fn plan_domain(&self, id: DomainId, window: PageRange<Iova>) -> Vec<Planned> {
        let binding = Binding::Domain(id);
        let bound = self
            .tables
            .iter()
            .filter(|(_, table)| table.spec.binding == binding);
        bound
            .map(|(&id, table)| (id, self.plan_table(table, self.states.now(), [window])))
            .filter(|(_, edits)| !edits.is_empty())
            .collect()
    }

    fn is_domain_settled(&self, id: DomainId, window: PageRange<Iova>) -> bool {
        self.are_quarantined(&self.plan_domain(id, window))
    }

    fn edit_error(&mut self, failure: Failure) -> EditError {
        let Failure { table, source } = failure;
        let quarantined = self.newly_quarantined();
        EditError {
            table,
            quarantined,
            source,
        }
    }
}
