//! Runs an address space and the oracle side by side.

use std::collections::BTreeMap;

use super::event::{Event, Operation};
use super::host::{Faults, ModelMemory, ModelTable};
use super::oracle::{DRAM, ENTRY_LIMIT, Oracle, Pages, REACH, RESERVED, Seen};
use crate::addr::{Gpa, Iova, Ipa, PAGE_SIZE, PageRange};
use crate::conversion::{ConvertError, Converted};
use crate::domain::{Binding, DomainId, Translation};
use crate::mapping::Access;
use crate::page_state::{PageState, Visibility};
use crate::reserved::{Reason, Reserved};
use crate::space::{AddressSpace, AttachError, EditError, MapError, RedirectError, UnmapError};
use crate::table::{Health, TableId, TableSpec};
use crate::view::Table;

/// The address space did something else than the oracle.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(String);

type Outcome = Result<(), Mismatch>;

fn ensure(condition: bool, complaint: impl FnOnce() -> String) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(Mismatch(complaint()))
    }
}

/// An address space, the host under it, and the oracle.
#[derive(Debug)]
pub struct Driver {
    space: AddressSpace<ModelTable>,
    faults: Faults,
    memory: ModelMemory,
    hosts: BTreeMap<TableId, ModelTable>,
    oracle: Oracle,
}

/// Most tables at a time.
const TABLES: usize = 4;

impl Driver {
    /// A VM of two DRAM ranges, with its shared names in place or in an upper half.
    ///
    /// # Errors
    /// When the address space refuses the VM.
    pub fn new(shared_half: bool, initial: Visibility) -> Result<Self, Mismatch> {
        let oracle = Oracle::new(shared_half, initial.into());
        let dram = DRAM.into_iter().filter_map(|(start, end)| {
            PageRange::new(gpa(start), bytes(end.checked_sub(start)?)).ok()
        });
        let space = AddressSpace::new(dram, initial, oracle.alias());
        let faults = Faults::none();
        Ok(Self {
            space: space.map_err(|error| Mismatch(error.to_string()))?,
            memory: ModelMemory::new(&faults, initial),
            faults,
            hosts: BTreeMap::new(),
            oracle,
        })
    }

    /// Runs a VM from bytes: the first picks its kind, each [`Event::BYTES`] more are an event.
    ///
    /// # Errors
    /// As [`Driver::step`].
    pub fn replay(input: &[u8]) -> Outcome {
        let Some((kind, events)) = input.split_first() else {
            return Ok(());
        };
        let initial = match kind & 2 {
            0 => Visibility::Private,
            _ => Visibility::Shared,
        };
        let mut driver = Self::new(kind & 1 != 0, initial)?;
        let (events, _) = events.as_chunks();
        for (number, bytes) in events.iter().enumerate() {
            let event = Event::decode(*bytes);
            driver
                .step(event)
                .map_err(|Mismatch(what)| Mismatch(format!("after {number}, {event:?}: {what}")))?;
        }
        Ok(())
    }

    /// Lets an event happen and compares all that can be seen afterwards.
    ///
    /// # Errors
    /// What differs: a bug in this crate, or in its model.
    pub fn step(&mut self, event: Event) -> Outcome {
        let before = self.host_pages();
        self.faults.set(event.faults.into_iter().flatten());
        match event.operation {
            Operation::Attach {
                role,
                binding,
                limited,
            } => self.attach(role, binding, limited)?,
            Operation::Detach { table } => self.detach(table),
            Operation::Switch { table, role } => {
                if let Some(id) = self.pick(table) {
                    let result = self.space.switch(id, role);
                    let change = |seen: &mut Seen| seen.role = role;
                    if matches!(result, Err(RedirectError::Damaged { .. }))
                        && let Some(seen) = self.oracle.tables.get_mut(&id)
                    {
                        seen.role = seen.role.max(role);
                    }
                    self.redirected(id, &result, change, &before)?;
                }
            }
            Operation::Bind { table, binding } => {
                if let Some(id) = self.pick(table) {
                    let result = self.space.bind(id, binding);
                    let legal = self.oracle.may_bind(binding);
                    ensure(legal || result.is_err(), || {
                        "bound to what is not there".into()
                    })?;
                    self.redirected(id, &result, |seen| seen.binding = binding, &before)?;
                }
            }
            Operation::Create { domain } => self.create(domain)?,
            Operation::Remove { domain } => self.remove(domain)?,
            Operation::Map {
                domain,
                iova,
                pages,
                name,
                access,
            } => {
                self.map(domain, (iova, pages), (name, access), &before)?;
            }
            Operation::Unmap {
                domain,
                iova,
                pages,
            } => {
                self.unmap(domain, iova, pages, &before)?;
            }
            Operation::Convert { start, pages, to } => self.convert(start, pages, to, &before)?,
        }
        self.faults.set([]);
        self.compare()
    }

    fn pick(&self, table: usize) -> Option<TableId> {
        let tables = self.oracle.tables.len();
        self.oracle
            .tables
            .keys()
            .nth(table.checked_rem(tables)?)
            .copied()
    }

    fn host_pages(&self) -> BTreeMap<TableId, Pages> {
        self.hosts
            .iter()
            .map(|(id, host)| (*id, numbered(host)))
            .collect()
    }

    fn attach(&mut self, role: Table, binding: Binding, limited: bool) -> Outcome {
        if self.hosts.len() >= TABLES {
            return Ok(());
        }
        let windows = RESERVED.into_iter().filter_map(|(start, end)| {
            let window = PageRange::new(iova(start), bytes(end.checked_sub(start)?));
            Some((window.ok()?, Reason::Msi))
        });
        let spec = TableSpec {
            table: role,
            binding,
            reserved: Reserved::new(windows),
            reach: iova(REACH.saturating_sub(1)),
            entry_limit: limited.then_some(ENTRY_LIMIT),
        };
        let host = ModelTable::new(&self.faults);
        let legal = self.oracle.may_bind(binding);
        match self.space.attach(host.handle(), spec) {
            Ok(id) => {
                ensure(legal && self.faults.fired() == 0, || {
                    "attached in spite of all".into()
                })?;
                self.memory.watch(&host);
                self.hosts.insert(id, host);
                let quarantined = false;
                self.oracle.tables.insert(
                    id,
                    Seen {
                        role,
                        binding,
                        limited,
                        quarantined,
                    },
                );
                Ok(())
            }
            Err(AttachError::TooManyEntries { .. }) => {
                ensure(limited, || "no limit, and yet too many".into())
            }
            Err(AttachError::Host(_)) => {
                ensure(self.faults.fired() > 0, || "failed without a fault".into())
            }
            Err(error) => ensure(!legal, || format!("refused: {error}")),
        }
    }

    fn detach(&mut self, table: usize) {
        if let Some(id) = self.pick(table) {
            drop(self.space.detach(id));
            self.oracle.tables.remove(&id);
            if let Some(host) = self.hosts.remove(&id) {
                self.memory.forget(&host);
            }
        }
    }

    fn redirected(
        &mut self,
        id: TableId,
        result: &Result<(), RedirectError>,
        change: impl FnOnce(&mut Seen),
        before: &BTreeMap<TableId, Pages>,
    ) -> Outcome {
        let Some(seen) = self.oracle.tables.get_mut(&id) else {
            return Ok(());
        };
        match result {
            Ok(()) => {
                change(seen);
                return ensure(self.faults.fired() == 0, || {
                    "success after a failure".into()
                });
            }
            Err(RedirectError::Damaged { .. }) => seen.quarantined = true,
            Err(RedirectError::Refused { .. }) if self.faults.fired() == 0 => {
                ensure(seen.limited, || "refused without a fault".into())?;
                self.unchanged(before)?;
            }
            // What is taken out of a quarantined table stays out.
            Err(_) if seen.quarantined => {}
            Err(_) => self.unchanged(before)?,
        }
        Ok(())
    }

    fn create(&mut self, domain: DomainId) -> Outcome {
        let is_new = !self.oracle.domains.contains_key(&domain);
        self.oracle.domains.entry(domain).or_default();
        let created = self.space.create_domain(domain).is_ok();
        ensure(created == is_new, || {
            format!("creating {domain}: {created}")
        })
    }

    fn remove(&mut self, domain: DomainId) -> Outcome {
        let binding = Binding::Domain(domain);
        let used = self
            .oracle
            .tables
            .values()
            .any(|table| table.binding == binding);
        let legal = !used && self.oracle.domains.remove(&domain).is_some();
        let removed = self.space.remove_domain(domain).is_ok();
        ensure(removed == legal, || format!("removing {domain}: {removed}"))
    }

    fn map(
        &mut self,
        domain: DomainId,
        (start, pages): (u64, u64),
        (name, access): (u64, Access),
        before: &BTreeMap<TableId, Pages>,
    ) -> Outcome {
        let Ok(range) = PageRange::new(iova(start), bytes(pages)) else {
            return Ok(());
        };
        let legal = self.oracle.may_map(domain, start, pages, name);
        let name_at = Ipa::new(bytes(name));
        let translation = Translation {
            iova: range,
            name: name_at,
            access,
        };
        match self.space.map(domain, translation) {
            Ok(()) => {
                ensure(legal, || "mapped what must not be mapped".into())?;
                ensure(self.faults.fired() == 0, || {
                    "success after a failure".into()
                })?;
                self.oracle.map(domain, start, pages, (name, access));
                Ok(())
            }
            Err(MapError::Host(error)) => {
                ensure(legal, || "tried what must not be mapped".into())?;
                self.not_followed(&error, before)
            }
            Err(error) => ensure(!legal, || format!("did not map: {error}")),
        }
    }

    fn unmap(
        &mut self,
        domain: DomainId,
        start: u64,
        pages: u64,
        before: &BTreeMap<TableId, Pages>,
    ) -> Outcome {
        let Ok(range) = PageRange::new(iova(start), bytes(pages)) else {
            return Ok(());
        };
        let legal = self.oracle.may_unmap(domain, start, pages);
        match self.space.unmap(domain, range) {
            Ok(_) => {
                ensure(legal, || "split a mapping".into())?;
                ensure(self.faults.fired() == 0, || {
                    "success after a failure".into()
                })?;
                self.oracle.unmap(domain, start, pages);
                Ok(())
            }
            Err(UnmapError::Host(error)) => self.not_followed(&error, before),
            Err(error) => ensure(!legal, || format!("did not unmap: {error}")),
        }
    }

    fn not_followed(&mut self, error: &EditError, before: &BTreeMap<TableId, Pages>) -> Outcome {
        if self.faults.fired() == 0 {
            let limited = self
                .oracle
                .tables
                .get(&error.table)
                .is_some_and(|table| table.limited);
            ensure(limited, || "failed without a fault".into())?;
        }
        self.quarantine(&error.quarantined);
        self.unchanged(before)
    }

    fn convert(
        &mut self,
        start: u64,
        pages: u64,
        to: Visibility,
        before: &BTreeMap<TableId, Pages>,
    ) -> Outcome {
        let end = start.saturating_add(pages);
        let dram = DRAM.iter().any(|&(low, high)| low <= start && end <= high);
        let request = self.space.request(gpa(start), bytes(pages), to);
        let legal = dram && pages > 0;
        ensure(legal == request.is_ok(), || "misjudged a request".into())?;
        let Ok(request) = request else {
            return Ok(());
        };
        let result = self.space.convert(request, &mut self.memory);
        ensure(self.memory.violations == 0, || {
            "flipped a page that a table maps".into()
        })?;
        match result {
            Ok(Converted { end: reached, .. }) => {
                ensure(reached == gpa(end), || "stopped early".into())?;
                ensure(self.faults.fired() == 0, || {
                    "success after a failure".into()
                })?;
                self.settle(start, end, to.into());
            }
            Err(error) => {
                let reached = page(error.converted_to());
                self.settle(start, reached, to.into());
                self.stopped(error, reached == start, before)?;
            }
        }
        Ok(())
    }

    fn stopped(
        &mut self,
        error: ConvertError,
        at_once: bool,
        before: &BTreeMap<TableId, Pages>,
    ) -> Outcome {
        match error {
            ConvertError::Quarantined { range } => {
                let state = self.oracle.states.get(&page(range.start()));
                ensure(state == Some(&PageState::Quarantined), || {
                    "not quarantined".into()
                })?;
            }
            ConvertError::Refused { .. } => {
                let limited = self.oracle.tables.values().any(|table| table.limited);
                ensure(limited || self.faults.fired() > 0, || {
                    "refused for nothing".into()
                })?;
                if at_once {
                    self.unchanged(before)?;
                }
            }
            ConvertError::Damaged { range, damage, .. } => {
                ensure(self.faults.fired() > 0, || "damaged for nothing".into())?;
                ensure(damage.pages || !damage.tables.is_empty(), || {
                    "no damage".into()
                })?;
                if damage.pages {
                    let (start, end) = (page(range.start()), page(range.end()));
                    self.settle(start, end, PageState::Quarantined);
                }
                self.quarantine(&damage.tables);
            }
        }
        Ok(())
    }

    fn settle(&mut self, start: u64, end: u64, state: PageState) {
        for (_, page) in self.oracle.states.range_mut(start..end) {
            *page = state;
        }
    }

    fn quarantine(&mut self, tables: &[TableId]) {
        for id in tables {
            if let Some(seen) = self.oracle.tables.get_mut(id) {
                seen.quarantined = true;
            }
        }
    }

    /// Sound tables hold what they held before.
    fn unchanged(&self, before: &BTreeMap<TableId, Pages>) -> Outcome {
        for (id, host) in &self.hosts {
            let sound = self
                .oracle
                .tables
                .get(id)
                .is_some_and(|seen| !seen.quarantined);
            let same = before.get(id) == Some(&numbered(host));
            ensure(!sound || same, || format!("{id} changed in a failure"))?;
        }
        Ok(())
    }

    fn compare(&self) -> Outcome {
        self.space
            .check()
            .map_err(|violation| Mismatch(violation.to_string()))?;
        for (&number, &state) in &self.oracle.states {
            let seen = self.space.states().at(gpa(number));
            ensure(seen == Some(state), || {
                format!("page {number} is {seen:?}, not {state:?}")
            })?;
        }
        for (&id, seen) in &self.oracle.tables {
            let health = self.space.health(id);
            let expected = if seen.quarantined {
                Health::Quarantined
            } else {
                Health::Sound
            };
            ensure(health == Some(expected), || format!("{id} is {health:?}"))?;
            let pages = self.hosts.get(&id).map(numbered).unwrap_or_default();
            if !seen.quarantined {
                let wanted = self.oracle.wanted(seen);
                ensure(pages == wanted, || {
                    format!("{id} holds {pages:?}, not {wanted:?}")
                })?;
            }
            self.compare_record(id, seen, &pages)?;
        }
        Ok(())
    }

    fn compare_record(&self, id: TableId, seen: &Seen, pages: &Pages) -> Outcome {
        for (&from, &(number, _)) in pages {
            let recorded = self
                .space
                .mapped(id)
                .and_then(|mapped| mapped.at(iova(from)));
            ensure(recorded.is_some(), || {
                format!("{id} holds page {from}, not recorded")
            })?;
            let private = seen.role == Table::T0 && !self.memory.is_shared(gpa(number));
            ensure(!private, || {
                format!("{id} is T0 and reaches private page {number}")
            })?;
        }
        Ok(())
    }
}

fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_SIZE)
}

fn gpa(page: u64) -> Gpa {
    Gpa::new(bytes(page))
}

fn iova(page: u64) -> Iova {
    Iova::new(bytes(page))
}

fn page(gpa: Gpa) -> u64 {
    gpa.raw() / PAGE_SIZE
}

fn numbered(host: &ModelTable) -> Pages {
    let pages = host.pages().into_iter();
    pages
        .map(|(iova, (gpa, access))| (iova.raw() / PAGE_SIZE, (page(gpa), access)))
        .collect()
}
