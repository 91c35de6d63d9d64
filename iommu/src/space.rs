//! The DMA address space of a VM: page states, the guest's domains, and the host tables that follow.
//!
//! One owner, `&mut self`, no locks: the VMM keeps it in its own mutex. Whatever happens, each table
//! holds what [`desired`](crate::desired) says, or is quarantined and reported.

mod check;
mod convert;
mod redirect;
mod transaction;
mod translate;
mod verify;

use std::collections::BTreeMap;

use crate::addr::{Gpa, Iova, PageRange};
use crate::alias::{Alias, SharedBit};
use crate::conversion::{Conversion, RequestError};
use crate::domain::{Binding, DomainId, GuestMap};
use crate::edit::Edits;
use crate::mapping::Mapped;
use crate::page_state::{PageStates, Visibility};
use crate::reserved::Reserved;
use crate::table::{Calls, DmaTable, Health, HostError, HostTable, TableId, TableSpec};
#[cfg(debug_assertions)]
use crate::view::Mirror;
use crate::view::{PrivatePages, Table, Trusted};

pub use check::Violation;
pub use redirect::RedirectError;
pub use translate::{DomainError, EditError, MAX_TRANSLATIONS, MapError, UnmapError};
pub use verify::{Difference, Snapshot};

/// The DMA address space of a VM.
#[derive(Debug, Clone)]
pub struct AddressSpace<T> {
    alias: Alias,
    trusted: Trusted,
    states: PageStates,
    domains: BTreeMap<DomainId, GuestMap>,
    tables: BTreeMap<TableId, HostTable<T>>,
    /// T0 and, where it is a host table of its own, T1 of the same devices.
    twins: BTreeMap<TableId, TableId>,
    next: u32,
    statistics: Statistics,
    /// Calls made to tables that have been detached.
    past_calls: Calls,
}

/// Why DRAM makes no address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// Two DRAM ranges overlap.
    #[error("two ranges of DRAM overlap")]
    Overlap,
    /// DRAM reaches into the half of the address space that names shared pages.
    #[error("DRAM at {range} lies in the shared half")]
    InSharedHalf {
        /// The DRAM range.
        range: PageRange<Gpa>,
    },
}

/// Why a table cannot follow the address space. The host table is empty, or dropped.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such domain.
    #[error("there is no {0}")]
    NoDomain(DomainId),
    /// The domain translates addresses that the table must not map.
    #[error("the table cannot translate {0}")]
    Unsuitable(PageRange<Iova>),
    /// A mapping would lie where the devices cannot reach.
    #[error("the table cannot reach {last}: it ends at {reach}")]
    OutOfReach {
        /// The last address to map.
        last: Iova,
        /// The last address of the table.
        reach: Iova,
    },
    /// The host does not let the table hold enough mappings.
    #[error("{entries} mappings are too many: the host allows {limit}")]
    TooManyEntries {
        /// Mappings to make.
        entries: usize,
        /// The host's limit.
        limit: usize,
    },
    /// A table that is no sound T0, or has a twin, gets none.
    #[error("{0} cannot have a twin")]
    NoTwin(TableId),
    /// A host call failed.
    #[error("cannot fill the table")]
    Host(#[source] HostError),
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Conversions to shared.
    pub to_shared: Flow,
    /// Conversions to private.
    pub to_private: Flow,
    /// Conversions that failed and left everything as it was.
    pub refused: u64,
    /// Conversions that failed and put something out of use.
    pub damaged: u64,
    /// Calls to DMA tables.
    pub calls: Calls,
}

/// Conversions in one direction that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Pages of 4 KiB.
    pub pages: u64,
    /// Contiguous ranges.
    pub extents: u64,
}

impl<T: DmaTable> AddressSpace<T> {
    /// The space of a VM with this DRAM, all of it in one state and reached by no device.
    ///
    /// # Errors
    /// When DRAM ranges overlap, or cannot be told from their shared names.
    pub fn new(
        dram: impl IntoIterator<Item = PageRange<Gpa>>,
        initial: Visibility,
        alias: Alias,
    ) -> Result<Self, SpaceError> {
        let states = PageStates::new(dram, initial).map_err(|_| SpaceError::Overlap)?;
        if let Some(&range) = states.dram().iter().find(|range| !alias.admits(**range)) {
            return Err(SpaceError::InSharedHalf { range });
        }
        Ok(Self {
            alias,
            trusted: Trusted::default(),
            states,
            domains: BTreeMap::new(),
            tables: BTreeMap::new(),
            twins: BTreeMap::new(),
            next: 0,
            statistics: Statistics::default(),
            past_calls: Calls::default(),
        })
    }

    /// From now on T1 holds private pages only, to show what breaks then. Before a table is T1.
    #[cfg(debug_assertions)]
    pub fn leave_out_mirror(&mut self) {
        self.trusted.mirror = Mirror::LeftOut;
    }

    /// From now on T1 holds no private pages, as the host's IOMMUs cannot map them: an accepted device
    /// reaches what it reached before. Before a table is attached.
    pub fn leave_out_private_pages(&mut self) {
        self.trusted.private = PrivatePages::OutOfReach;
    }

    /// From now on an accepted device names shared pages with this bit set, and private ones without it, while
    /// one that is not accepted names pages in place. For tables of the identity; before a table is attached.
    ///
    /// # Errors
    /// When DRAM cannot be told from its shared names.
    pub fn name_accepted_by(&mut self, bit: SharedBit) -> Result<(), SpaceError> {
        let alias = Alias::SharedBit(bit);
        let mut dram = self.states.dram().iter();
        if let Some(&range) = dram.find(|range| !alias.admits(**range)) {
            return Err(SpaceError::InSharedHalf { range });
        }
        self.trusted.shared = Some(bit);
        Ok(())
    }

    /// Fills an empty host table and keeps it right from now on. Devices may be put behind it once
    /// this has returned.
    ///
    /// # Errors
    /// When the table is too small or a host call fails. `host` is dropped, and by then empty as far
    /// as the host allows.
    pub fn attach(&mut self, host: T, spec: TableSpec) -> Result<TableId, AttachError> {
        if let Binding::Domain(id) = spec.binding {
            let map = self.domains.get(&id).ok_or(AttachError::NoDomain(id))?;
            spec.suits_all(map).map_err(AttachError::Unsuitable)?;
        }
        let mut table = HostTable::new(host, spec);
        let edits = self.plan_table(&table, self.states.now(), [PageRange::everything()]);
        let last = edits.maps().last().map(|mapping| mapping.iova.last());
        if let Some(last) = last.filter(|last| *last > table.spec.reach) {
            let reach = table.spec.reach;
            return Err(AttachError::OutOfReach { last, reach });
        }
        if let Some(limit) = table.spec.entry_limit
            && let entries = edits.entries_after(0)
            && entries > limit
        {
            return Err(AttachError::TooManyEntries { entries, limit });
        }
        let filled = table.apply(&edits);
        if let Err(error) = filled {
            self.past_calls.add(table.calls);
            return Err(AttachError::Host(error));
        }
        let id = TableId(self.next);
        self.next = self.next.saturating_add(1);
        self.tables.insert(id, table);
        Ok(id)
    }

    /// Fills a second host table for the devices of a T0, their T1, and keeps both alike: the twin has
    /// the same windows and reach, and follows every [`AddressSpace::bind`] until it is detached.
    /// Devices may be moved between the two at any time.
    ///
    /// # Errors
    /// As [`AddressSpace::attach`]; or when there is no such T0, or it has a twin, or is quarantined.
    pub fn attach_twin(&mut self, id: TableId, host: T) -> Result<TableId, AttachError> {
        let table = self.tables.get(&id).ok_or(AttachError::NoTwin(id))?;
        let fit = table.spec.table == Table::T0 && table.health == Health::Sound;
        if !fit || self.twins.contains_key(&id) {
            return Err(AttachError::NoTwin(id));
        }
        let spec = TableSpec {
            table: Table::T1,
            ..table.spec.clone()
        };
        let twin = self.attach(host, spec)?;
        self.twins.insert(id, twin);
        Ok(twin)
    }

    /// Empties a table and gives it back; a twin of it is dropped. Its devices must be behind it no longer, or be ready to
    /// fault.
    ///
    /// What cannot be unmapped stays mapped in the returned table: dropping it must end that.
    pub fn detach(&mut self, id: TableId) -> Option<T> {
        if let Some(twin) = self.twins.remove(&id) {
            drop(self.detach(twin));
        }
        self.twins.retain(|_, twin| *twin != id);
        let mut table = self.tables.remove(&id)?;
        for range in Edits::clearing(&table.mapped).unmaps() {
            // A failure is no reason to leave the rest mapped.
            let _emptied = table.unmap(*range);
        }
        self.past_calls.add(table.calls);
        Some(table.host)
    }

    /// Checks a guest's request to convert `bytes` bytes from `start`, an address without the shared
    /// bit.
    ///
    /// # Errors
    /// As [`Conversion::new`].
    pub fn request(
        &self,
        start: Gpa,
        bytes: u64,
        to: Visibility,
    ) -> Result<Conversion, RequestError> {
        Conversion::new(&self.states, start, bytes, to)
    }

    /// The states of the pages.
    #[must_use]
    pub fn states(&self) -> &PageStates {
        &self.states
    }

    /// The host table that is T1 for the devices of a T0, where they have one of its own.
    #[must_use]
    pub fn twin(&self, id: TableId) -> Option<TableId> {
        self.twins.get(&id).copied()
    }

    /// The addresses at which a table of the identity, T0 or T1, maps pages at one time or another:
    /// both names of all DRAM, without the windows that the table never maps. Names that only an accepted
    /// device has are not among them: a device that does not reach them is not accepted.
    #[must_use]
    pub fn identity_addresses(&self, reserved: &Reserved) -> Vec<PageRange<Iova>> {
        let forms: &[Visibility] = match self.alias {
            Alias::InPlace => &[Visibility::Shared],
            Alias::SharedBit(_) => &[Visibility::Private, Visibility::Shared],
        };
        let mut addresses = Vec::new();
        for &form in forms {
            for &dram in self.states.dram() {
                let names = self.alias.names(dram, form);
                let iova = names.and_then(|names| names.rebased(Iova::new(names.start().raw())));
                addresses.extend(iova.into_iter().flat_map(|iova| reserved.carve(iova)));
            }
        }
        addresses
    }

    /// What a table holds.
    #[must_use]
    pub fn mapped(&self, id: TableId) -> Option<&Mapped> {
        Some(&self.tables.get(&id)?.mapped)
    }

    /// Which of its domain's two tables a host table is.
    #[must_use]
    pub fn role(&self, id: TableId) -> Option<Table> {
        Some(self.tables.get(&id)?.spec.table)
    }

    /// Whether a table's record can be trusted.
    #[must_use]
    pub fn health(&self, id: TableId) -> Option<Health> {
        Some(self.tables.get(&id)?.health)
    }

    /// The host's side of a table, for what is not mapping: putting devices behind it, asking for its
    /// limits. Its content must not be changed.
    pub fn host_mut(&mut self, id: TableId) -> Option<&mut T> {
        Some(&mut self.tables.get_mut(&id)?.host)
    }

    /// The attached tables.
    pub fn tables(&self) -> impl Iterator<Item = TableId> {
        self.tables.keys().copied()
    }

    /// What has been done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.statistics;
        statistics.calls = self.past_calls;
        for table in self.tables.values() {
            statistics.calls.add(table.calls);
        }
        statistics
    }
}

#[cfg(test)]
mod tests;
