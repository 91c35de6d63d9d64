//! What each page is and what each table must show of it, kept page by page in the plainest way.

use std::collections::BTreeMap;

use crate::alias::{Alias, SharedBit};
use crate::domain::{Binding, DomainId};
use crate::mapping::Access;
use crate::page_state::PageState;
use crate::table::TableId;
use crate::view::Table;

/// DRAM of the model, in pages: two ranges with a hole between them.
pub(super) const DRAM: [(u64, u64); 2] = [(0, 24), (32, 56)];
/// Windows that no table may map, in pages of IOVA.
pub(super) const RESERVED: [(u64, u64); 2] = [(10, 12), (84, 85)];
/// The page number of the shared half, where there is one.
pub(super) const SHARED_HALF: u64 = 64;
/// IOVAs from this page on are beyond reach.
pub(super) const REACH: u64 = 128;
/// Mappings that a limited table may hold.
pub(super) const ENTRY_LIMIT: usize = 8;

/// The contents of a table: for each page of IOVA the page that it reaches.
pub(super) type Pages = BTreeMap<u64, (u64, Access)>;

/// A table as the oracle sees it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) role: Table,
    pub(super) binding: Binding,
    pub(super) limited: bool,
    pub(super) quarantined: bool,
}

/// Everything that decides what tables must hold.
#[derive(Debug, Clone)]
pub(super) struct Oracle {
    pub(super) shared_half: bool,
    pub(super) states: BTreeMap<u64, PageState>,
    pub(super) tables: BTreeMap<TableId, Seen>,
    /// For each domain and page of IOVA: the page named, and the number of the mapping.
    pub(super) domains: BTreeMap<DomainId, BTreeMap<u64, Entry>>,
    next_mapping: u64,
}

/// One page of a guest's mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: u64,
    pub(super) access: Access,
    mapping: u64,
}

impl Oracle {
    pub(super) fn new(shared_half: bool, initial: PageState) -> Self {
        let dram = DRAM.into_iter().flat_map(|(start, end)| start..end);
        Self {
            shared_half,
            states: dram.map(|page| (page, initial)).collect(),
            tables: BTreeMap::new(),
            domains: BTreeMap::new(),
            next_mapping: 0,
        }
    }

    pub(super) fn alias(&self) -> Alias {
        match SharedBit::new(18) {
            Some(bit) if self.shared_half => Alias::SharedBit(bit),
            _ => Alias::InPlace,
        }
    }

    /// What a table must hold.
    pub(super) fn wanted(&self, table: &Seen) -> Pages {
        let reserved = |iova: u64| {
            RESERVED
                .iter()
                .any(|&(start, end)| (start..end).contains(&iova))
        };
        (0..REACH)
            .filter(|&iova| !reserved(iova))
            .filter_map(|iova| {
                let (name, access) = match table.binding {
                    Binding::Blocked => return None,
                    Binding::Identity => (iova, Access::ReadWrite),
                    Binding::Domain(id) => {
                        let entry = self.domains.get(&id)?.get(&iova)?;
                        (entry.name, entry.access)
                    }
                };
                Some((iova, (self.reached(name, table.role)?, access)))
            })
            .collect()
    }

    /// The page that a name reaches through a table of this role.
    fn reached(&self, name: u64, role: Table) -> Option<u64> {
        let (page, shared) = match self.shared_half {
            false => (name, None),
            true if name < SHARED_HALF => (name, Some(false)),
            true => (name.checked_sub(SHARED_HALF)?, Some(true)),
        };
        let visible = match self.states.get(&page)? {
            PageState::Shared => shared != Some(false),
            PageState::Private => shared != Some(true) && role == Table::T1,
            PageState::Converting | PageState::Quarantined => false,
        };
        visible.then_some(page)
    }

    /// Whether the guest may name these pages as the target of a mapping.
    fn names_dram(&self, name: u64, pages: u64) -> bool {
        let inside = |base: u64| {
            DRAM.iter().any(|&(start, end)| {
                let (start, end) = (start.saturating_add(base), end.saturating_add(base));
                start <= name && name.saturating_add(pages) <= end
            })
        };
        inside(0) || (self.shared_half && inside(SHARED_HALF))
    }

    /// Whether a map request makes sense.
    pub(super) fn may_map(&self, domain: DomainId, iova: u64, pages: u64, name: u64) -> bool {
        let Some(entries) = self.domains.get(&domain) else {
            return false;
        };
        let end = iova.saturating_add(pages);
        let bound = self
            .tables
            .values()
            .any(|table| table.binding == Binding::Domain(domain));
        let reserved = RESERVED
            .iter()
            .any(|&(start, stop)| start < end && iova < stop);
        pages > 0
            && self.names_dram(name, pages)
            && entries.range(iova..end).next().is_none()
            && !(bound && (reserved || end > REACH))
    }

    pub(super) fn map(&mut self, domain: DomainId, iova: u64, pages: u64, to: (u64, Access)) {
        let (name, access) = to;
        let mapping = self.next_mapping;
        self.next_mapping = mapping.saturating_add(1);
        let entries = self.domains.entry(domain).or_default();
        entries.extend((0..pages).map(|page| {
            let name = name.saturating_add(page);
            (
                iova.saturating_add(page),
                Entry {
                    name,
                    access,
                    mapping,
                },
            )
        }));
    }

    /// Whether an unmap request makes sense.
    pub(super) fn may_unmap(&self, domain: DomainId, iova: u64, pages: u64) -> bool {
        let Some(entries) = self.domains.get(&domain) else {
            return false;
        };
        let end = iova.saturating_add(pages);
        let inside = |page: u64| (iova..end).contains(&page);
        let taken = entries.iter().filter(|(page, _)| inside(**page));
        let split = |mapping: u64| {
            entries
                .iter()
                .any(|(page, entry)| entry.mapping == mapping && !inside(*page))
        };
        pages > 0 && !taken.into_iter().any(|(_, entry)| split(entry.mapping))
    }

    pub(super) fn unmap(&mut self, domain: DomainId, iova: u64, pages: u64) {
        let end = iova.saturating_add(pages);
        if let Some(entries) = self.domains.get_mut(&domain) {
            entries.retain(|page, _| !(iova..end).contains(page));
        }
    }

    /// Whether a table can be bound so.
    pub(super) fn may_bind(&self, binding: Binding) -> bool {
        let Binding::Domain(id) = binding else {
            return true;
        };
        let reserved = |page: u64| {
            RESERVED
                .iter()
                .any(|&(start, end)| (start..end).contains(&page))
        };
        let entries = self.domains.get(&id);
        entries.is_some_and(|entries| !entries.keys().any(|&page| reserved(page) || page >= REACH))
    }
}
