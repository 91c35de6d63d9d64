//! The host's side of a DMA table, and the record that mirrors it.

use std::error::Error;
use std::fmt;

use crate::addr::{Gpa, Iova, PageRange};
use crate::alias::Alias;
use crate::domain::{Binding, Domain, GuestMap};
use crate::edit::Edits;
use crate::mapping::{Access, Mapped, Mapping};
use crate::page_state::StateView;
use crate::reserved::Reserved;
use crate::view::{DmaView, Table, Trusted};

/// A DMA table of the host: a type1 container or an iommufd address space.
pub trait DmaTable {
    /// Lets devices reach the pages from `gpa` on at `iova`, which overlaps no mapping.
    ///
    /// # Errors
    /// The error says what became of the table: see [`HostError`].
    fn map(&mut self, iova: PageRange<Iova>, gpa: Gpa, access: Access) -> Result<(), HostError>;

    /// Takes away every mapping in `iova`, and returns once no device can reach the pages any more.
    ///
    /// `iova` begins where a mapping begins, ends where one ends, and may hold several.
    ///
    /// # Errors
    /// The error says what became of the table: see [`HostError`].
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError>;

    /// What the host has accepted and not given back, as far as it can be told: the record is held
    /// against it by [`Snapshot::verify`](crate::space::Snapshot::verify).
    fn holdings(&self) -> Option<Holdings> {
        None
    }
}

/// What a host table is known to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The mappings that were accepted and not taken away, ascending.
    pub mapped: Vec<PageRange<Iova>>,
    /// How many more the host says that it would accept; with [`TableSpec::entry_limit`], its own
    /// count of them.
    pub entries_left: Option<usize>,
}

impl<T: DmaTable + ?Sized> DmaTable for Box<T> {
    fn map(&mut self, iova: PageRange<Iova>, gpa: Gpa, access: Access) -> Result<(), HostError> {
        (**self).map(iova, gpa, access)
    }
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        (**self).unmap(iova)
    }
    fn holdings(&self) -> Option<Holdings> {
        (**self).holdings()
    }
}

/// What a host call that failed has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing has changed.
    None,
    /// All, some or nothing of it may have been done.
    Unknown,
}

/// A call to the host's kernel that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed")]
pub struct HostError {
    call: &'static str,
    effect: Effect,
    source: Box<dyn Error + Send + Sync>,
}

impl HostError {
    /// The call (`VFIO_IOMMU_MAP_DMA`) failed and has changed nothing.
    pub fn without_effect(
        call: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            call,
            effect: Effect::None,
            source: source.into(),
        }
    }

    /// The call failed, and how far it came is not known.
    pub fn with_unknown_effect(
        call: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            call,
            effect: Effect::Unknown,
            source: source.into(),
        }
    }

    /// The name of the call.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What it has left behind.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }
}

/// Identifies a host table in an [`AddressSpace`](crate::AddressSpace); never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub(crate) u32);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}", self.0)
    }
}

/// What a host table is to hold, and what it can.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Which of its domain's two tables it is.
    pub table: Table,
    /// What it translates by.
    pub binding: Binding,
    /// Windows that it must never map.
    pub reserved: Reserved,
    /// The last IOVA that its devices and their IOMMU can use.
    pub reach: Iova,
    /// How many mappings the host lets it hold (type1: `dma_entry_limit`), if bounded.
    pub entry_limit: Option<usize>,
}

impl TableSpec {
    /// Whether the table can map all of `iova`.
    #[must_use]
    pub fn suits(&self, iova: PageRange<Iova>) -> bool {
        iova.last() <= self.reach && self.reserved.conflict(iova).is_none()
    }

    /// Whether it can map all that the guest has mapped; if not, the first range that it cannot.
    pub(crate) fn suits_all(&self, map: &GuestMap) -> Result<(), PageRange<Iova>> {
        let mut windows = map.iter().map(|translation| translation.iova);
        windows.find(|iova| !self.suits(*iova)).map_or(Ok(()), Err)
    }
}

/// Host calls made so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls of [`DmaTable::map`].
    pub map: u64,
    /// Calls of [`DmaTable::unmap`].
    pub unmap: u64,
}

impl Calls {
    pub(crate) fn add(&mut self, other: Self) {
        self.map = self.map.saturating_add(other.map);
        self.unmap = self.unmap.saturating_add(other.unmap);
    }
}

/// Whether the record of a table can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The host table holds exactly what is recorded, and that is what it must hold.
    Sound,
    /// A call failed in a way that could not be undone. The record holds at least what the host
    /// table holds. It only shrinks: nothing is mapped any more, but pages that turn private still go.
    Quarantined,
}

/// What has been done to a table, in order.
#[derive(Debug, Default)]
pub(crate) struct Undo(Vec<Done>);

#[derive(Debug)]
enum Done {
    Unmapped(Vec<Mapping>),
    Mapped(Mapping),
}

/// A host table and the exact record of what it holds.
#[derive(Debug, Clone)]
pub(crate) struct HostTable<T> {
    pub(crate) host: T,
    pub(crate) spec: TableSpec,
    pub(crate) mapped: Mapped,
    pub(crate) health: Health,
    /// Whether somebody has been told that it is quarantined.
    pub(crate) reported: bool,
    pub(crate) calls: Calls,
}

impl<T> HostTable<T> {
    pub(crate) fn new(host: T, spec: TableSpec) -> Self {
        Self {
            host,
            spec,
            mapped: Mapped::default(),
            health: Health::Sound,
            reported: false,
            calls: Calls::default(),
        }
    }

    pub(crate) fn view<'a>(
        &'a self,
        domain: Domain<'a>,
        (alias, trusted): (Alias, Trusted),
        states: StateView<'a>,
    ) -> DmaView<'a> {
        DmaView {
            domain,
            alias,
            states,
            table: self.spec.table,
            trusted,
            reserved: &self.spec.reserved,
        }
    }
}

impl<T: DmaTable> HostTable<T> {
    /// Carries out `edits`. When a call fails, what was done is undone; where that fails too, or the
    /// effect of a call is not known, the table is quarantined.
    pub(crate) fn apply(&mut self, edits: &Edits) -> Result<Undo, HostError> {
        let mut undo = Undo(Vec::with_capacity(edits.iter().count()));
        match self.carry_out(edits, &mut undo) {
            Ok(()) => Ok(undo),
            Err(error) => {
                self.undo(undo);
                Err(error)
            }
        }
    }

    fn carry_out(&mut self, edits: &Edits, undo: &mut Undo) -> Result<(), HostError> {
        for &range in edits.unmaps() {
            undo.0.push(Done::Unmapped(self.unmap(range)?));
        }
        if self.health == Health::Sound {
            for &mapping in edits.maps() {
                let result = self.map(mapping);
                // Recorded even after a failure, when it may be there all the same.
                if result.is_ok() || self.mapped.at(mapping.iova.start()) == Some(mapping) {
                    undo.0.push(Done::Mapped(mapping));
                }
                result?;
            }
        }
        Ok(())
    }

    /// Takes back what [`HostTable::apply`] did; quarantines the table where that fails.
    pub(crate) fn undo(&mut self, undo: Undo) {
        for done in undo.0.into_iter().rev() {
            let undone = match done {
                Done::Mapped(mapping) => self.unmap(mapping.iova).map(drop),
                Done::Unmapped(mappings) if self.health == Health::Sound => mappings
                    .into_iter()
                    .try_for_each(|mapping| self.map(mapping)),
                Done::Unmapped(_) => Ok(()),
            };
            if undone.is_err() {
                self.health = Health::Quarantined;
            }
        }
    }

    pub(crate) fn unmap(&mut self, range: PageRange<Iova>) -> Result<Vec<Mapping>, HostError> {
        self.calls.unmap = self.calls.unmap.saturating_add(1);
        match self.host.unmap(range) {
            Ok(()) => Ok(self.mapped.take_within(range)),
            Err(error) => {
                self.note(&error);
                Err(error)
            }
        }
    }

    fn map(&mut self, mapping: Mapping) -> Result<(), HostError> {
        self.calls.map = self.calls.map.saturating_add(1);
        let result = self.host.map(mapping.iova, mapping.gpa, mapping.access);
        if let Err(error) = &result {
            self.note(error);
            if error.effect() == Effect::None {
                return result;
            }
        }
        // Even when it may not be there: the record is never less than the truth.
        let recorded = self.mapped.insert(mapping);
        debug_assert!(recorded.is_ok(), "{mapping} overlaps the record");
        result
    }

    fn note(&mut self, error: &HostError) {
        if error.effect() == Effect::Unknown {
            self.health = Health::Quarantined;
        }
    }
}
