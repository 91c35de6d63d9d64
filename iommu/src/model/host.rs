//! A host made of memory: strict about the contract of [`DmaTable`] and [`PageFlip`], and failing on
//! demand.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::addr::{Gpa, Iova, PAGE_SIZE, PageRange};
use crate::conversion::PageFlip;
use crate::mapping::{Access, Mapping};
use crate::page_state::Visibility;
use crate::table::{DmaTable, HostError};

/// Which host calls fail, counted over all tables and the memory of a host.
#[derive(Debug, Clone, Default)]
pub struct Faults(Rc<RefCell<Schedule>>);

#[derive(Debug, Default)]
struct Schedule {
    /// Calls since the faults were set.
    calls: u32,
    faults: Vec<(u32, Fault)>,
    fired: u32,
}

/// How a host call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// With nothing done.
    Refuse,
    /// Said to be of unknown effect, with nothing done.
    Lose,
    /// Said to be of unknown effect, with all done.
    Do,
}

impl Faults {
    /// No call fails.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// From now on, the calls with these numbers fail, counted from 0.
    pub fn set(&self, faults: impl IntoIterator<Item = (u32, Fault)>) {
        *self.0.borrow_mut() = Schedule {
            faults: faults.into_iter().collect(),
            ..Schedule::default()
        };
    }

    /// How many calls have failed since faults were last set.
    #[must_use]
    pub fn fired(&self) -> u32 {
        self.0.borrow().fired
    }

    /// Runs a host call.
    fn call(&self, name: &'static str, act: impl FnOnce()) -> Result<(), HostError> {
        let mut schedule = self.0.borrow_mut();
        let number = schedule.calls;
        schedule.calls = number.saturating_add(1);
        let due = schedule.faults.iter().find(|(call, _)| *call == number);
        let fault = due.map(|(_, fault)| *fault);
        if fault.is_some() {
            schedule.fired = schedule.fired.saturating_add(1);
        }
        if matches!(fault, None | Some(Fault::Do)) {
            act();
        }
        match fault {
            None => Ok(()),
            Some(Fault::Refuse) => Err(HostError::without_effect(name, "injected")),
            Some(Fault::Lose | Fault::Do) => Err(HostError::with_unknown_effect(name, "injected")),
        }
    }
}

/// A host table that knows each page, and each mapping as it was made.
#[derive(Debug, Clone, Default)]
pub struct ModelTable {
    faults: Faults,
    mappings: Rc<RefCell<BTreeMap<Iova, Mapping>>>,
}

impl ModelTable {
    /// An empty table on a host that fails as `faults` says.
    #[must_use]
    pub fn new(faults: &Faults) -> Self {
        Self {
            faults: faults.clone(),
            mappings: Rc::default(),
        }
    }

    /// Another handle on the same table.
    #[must_use]
    pub fn handle(&self) -> Self {
        self.clone()
    }

    /// The mappings, in order.
    #[must_use]
    pub fn mappings(&self) -> Vec<Mapping> {
        self.mappings.borrow().values().copied().collect()
    }

    /// What each mapped page reaches.
    #[must_use]
    pub fn pages(&self) -> BTreeMap<Iova, (Gpa, Access)> {
        let mut pages = BTreeMap::new();
        for mapping in self.mappings.borrow().values() {
            for page in 0..mapping.iova.pages() {
                let offset = page.saturating_mul(PAGE_SIZE);
                let iova = mapping.iova.start().checked_add(offset);
                let gpa = mapping.gpa.checked_add(offset);
                if let (Some(iova), Some(gpa)) = (iova, gpa) {
                    pages.insert(iova, (gpa, mapping.access));
                }
            }
        }
        pages
    }
}

impl DmaTable for ModelTable {
    fn map(&mut self, iova: PageRange<Iova>, gpa: Gpa, access: Access) -> Result<(), HostError> {
        let mut mappings = self.mappings.borrow_mut();
        if mappings.values().any(|mapping| mapping.iova.overlaps(iova)) {
            return Err(HostError::without_effect("map", "overlaps a mapping"));
        }
        let mapping = Mapping { iova, gpa, access };
        self.faults.call("map", || {
            mappings.insert(iova.start(), mapping);
        })
    }

    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        let mut mappings = self.mappings.borrow_mut();
        let touched = mappings
            .values()
            .filter(|mapping| mapping.iova.overlaps(iova));
        if touched.clone().any(|mapping| !iova.covers(mapping.iova)) {
            return Err(HostError::without_effect("unmap", "bisects a mapping"));
        }
        let starts: BTreeSet<Iova> = touched.map(|mapping| mapping.iova.start()).collect();
        self.faults.call("unmap", || {
            mappings.retain(|start, _| !starts.contains(start));
        })
    }
}

/// The memory of a host: what stage 2 really shows.
#[derive(Debug, Clone)]
pub struct ModelMemory {
    faults: Faults,
    initial: Visibility,
    /// Pages that were ever flipped.
    flipped: BTreeMap<Gpa, Visibility>,
    watched: Vec<ModelTable>,
    /// Calls, failed ones included.
    pub calls: u64,
    /// Flips of a page that a watched table still mapped.
    pub violations: u64,
}

impl ModelMemory {
    /// Memory of a host that fails as `faults` says, all of it in one state.
    #[must_use]
    pub fn new(faults: &Faults, initial: Visibility) -> Self {
        Self {
            faults: faults.clone(),
            initial,
            flipped: BTreeMap::new(),
            watched: Vec::new(),
            calls: 0,
            violations: 0,
        }
    }

    /// Counts flips of pages that this table maps as violations.
    pub fn watch(&mut self, table: &ModelTable) {
        self.watched.push(table.handle());
    }

    /// Ends [`ModelMemory::watch`].
    pub fn forget(&mut self, table: &ModelTable) {
        self.watched
            .retain(|watched| !Rc::ptr_eq(&watched.mappings, &table.mappings));
    }

    /// Whether stage 2 lets the host reach the page.
    #[must_use]
    pub fn is_shared(&self, gpa: Gpa) -> bool {
        *self.flipped.get(&gpa).unwrap_or(&self.initial) == Visibility::Shared
    }
}

impl PageFlip for ModelMemory {
    fn flip(&mut self, range: PageRange<Gpa>, to: Visibility) -> Result<(), HostError> {
        self.calls = self.calls.saturating_add(1);
        let mapped = |table: &ModelTable| {
            let mappings = table.mappings.borrow();
            mappings.values().any(|mapping| mapping.reaches(range))
        };
        if self.watched.iter().any(mapped) {
            self.violations = self.violations.saturating_add(1);
        }
        let flipped = &mut self.flipped;
        self.faults.call("flip", || {
            for page in 0..range.pages() {
                let offset = page.saturating_mul(PAGE_SIZE);
                flipped.extend(range.start().checked_add(offset).map(|gpa| (gpa, to)));
            }
        })
    }

    fn discard(&mut self, _: PageRange<Gpa>, _: Visibility) -> Result<(), HostError> {
        self.calls = self.calls.saturating_add(1);
        self.faults.call("discard", || ())
    }
}
