//! The pages of a running VM: what state each is in, and everything that has to follow.
//!
//! ```text
//!   guest asks ─► [ one lock: DMA tables lose it ─► stage 2 and backing change ─► DMA tables gain it ]
//! ```
//!
//! [`Pages`] is the one owner of the page states, of the DMA tables of all assigned devices, of the
//! guest's IOMMU and of the two forms of guest RAM. The order of the steps, and what becomes of a
//! failure, is the iommu crate's business; a guest is told of a success only when all of it has
//! happened.

mod guest_memfd;
mod shared_memory;
#[cfg(test)]
mod tests;
mod translation;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use devices::rate_limit::RateLimit;
use iommu::request::EndpointId;
use iommu::space::{AttachError, SpaceError};
use iommu::viommu::Viommu;
use iommu::{
    AddressSpace, Alias, ConvertError, DmaTable, DomainId, Gpa, HostError, PageFlip, PageRange,
    PageState, PageStates, SharedBit, Statistics, TableId, TableSpec, Visibility,
};
use kvm::Vm;
use kvm::ram::{GuestRam, HostPages, RamError};
use vm_memory::{Bytes, GuestAddress};

use crate::causes::chain;
use crate::plan::VmPlan;
use crate::platform::emulated_realm::{
    NotPrivate, NotShared, RealmMemory, Response, Ripas, RipasChange, RipasProgress,
};

pub use guest_memfd::Unconverted;
pub use shared_memory::SharedMemory;
pub use translation::Translation;

/// A guest that makes its host fail again and again does not fill the log.
static FAILURES: RateLimit = RateLimit::per_second(5);

/// A DMA table of the host.
pub type HostTable = Box<dyn DmaTable + Send>;

/// Cuts off the devices behind tables that are out of use; called with everything locked.
pub type OnQuarantine = Box<dyn Fn(&[TableId]) + Send>;

/// Why there are no pages to run a VM on.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The host gives no memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// KVM gives no private memory.
    #[error(transparent)]
    Kvm(kvm::Error),
    /// The plan's DRAM makes no address space: a bug in the planner.
    #[error("the planned memory is not usable")]
    Space(#[source] SpaceError),
}

/// The pages of one VM. Shared between its vCPUs and whoever assigns devices to it.
pub struct Pages {
    ram: Arc<GuestRam>,
    alias: Alias,
    /// Whether pages can change their state.
    converts: bool,
    /// Held by emulated devices while they use shared pages; before `held` where both are.
    accesses: RwLock<()>,
    /// The VM, where KVM knows which form of a page is in force.
    vm: Option<Vm>,
    held: Mutex<Held>,
    on_quarantine: Mutex<Option<OnQuarantine>>,
}

/// What changes together.
struct Held {
    space: AddressSpace<HostTable>,
    /// The guest's IOMMU: one without endpoints where it has none.
    viommu: Viommu,
}

/// The page states and the tables, with everything locked.
pub struct LockedSpace<'a>(MutexGuard<'a, Held>);

impl Deref for LockedSpace<'_> {
    type Target = AddressSpace<HostTable>;

    fn deref(&self) -> &Self::Target {
        &self.0.space
    }
}

impl DerefMut for LockedSpace<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0.space
    }
}

impl Pages {
    /// The memory of a planned VM: all private where shared pages have an alias, else all shared, and
    /// then made of `pages` of the host.
    ///
    /// # Errors
    /// When the host has no room.
    pub fn new(plan: &VmPlan, pages: HostPages) -> Result<Self, PagesError> {
        let mut functions = plan.functions().iter();
        let plain = match functions.any(|function| function.device.shares_memory()) {
            true => GuestRam::in_files,
            false => GuestRam::plain,
        };
        Self::with_ram(plan.dram(), plan.shared_bit(), |dram| plain(dram, pages))
    }

    #[cfg(test)]
    pub(crate) fn with_dram(
        dram: &[PageRange<Gpa>],
        shared_bit: Option<u8>,
    ) -> Result<Self, PagesError> {
        Self::with_ram(dram, shared_bit, |dram| {
            GuestRam::plain(dram, HostPages::Transparent)
        })
    }

    /// `plain` makes the RAM whose pages have one state for good.
    fn with_ram(
        dram: &[PageRange<Gpa>],
        shared_bit: Option<u8>,
        plain: impl FnOnce(&[PageRange<Gpa>]) -> Result<GuestRam, RamError>,
    ) -> Result<Self, PagesError> {
        match (shared_bit, Self::alias(shared_bit)) {
            (Some(number), alias @ Alias::SharedBit(_)) => {
                let ram = GuestRam::split(dram, number)?;
                Self::of(ram, dram, Visibility::Private, alias)
            }
            _ => {
                let ram = plain(dram)?;
                Self::of(ram, dram, Visibility::Shared, Alias::InPlace)
            }
        }
    }

    /// How shared pages are named.
    fn alias(shared_bit: Option<u8>) -> Alias {
        let bit = shared_bit.and_then(SharedBit::new);
        bit.map_or(Alias::InPlace, Alias::SharedBit)
    }

    fn of(
        ram: GuestRam,
        dram: &[PageRange<Gpa>],
        initial: Visibility,
        alias: Alias,
    ) -> Result<Self, PagesError> {
        let space = AddressSpace::new(dram.iter().copied(), initial, alias);
        Ok(Self {
            ram: Arc::new(ram),
            alias,
            converts: matches!(alias, Alias::SharedBit(_)),
            accesses: RwLock::new(()),
            vm: None,
            held: Mutex::new(Held {
                space: space.map_err(PagesError::Space)?,
                viommu: Viommu::new(PageRange::everything(), true),
            }),
            on_quarantine: Mutex::new(None),
        })
    }

    /// The memory, for loading the guest and for KVM's slots.
    #[must_use]
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Fills an empty DMA table with what its devices may reach, and keeps it right from now on.
    ///
    /// # Errors
    /// As [`AddressSpace::attach`].
    pub fn attach(&self, table: HostTable, spec: TableSpec) -> Result<TableId, AttachError> {
        self.space().attach(table, spec)
    }

    /// Empties a DMA table and gives it back; its devices can do no more DMA.
    #[must_use = "what could not be unmapped ends when the table is dropped"]
    pub fn detach(&self, table: TableId) -> Option<HostTable> {
        self.space().detach(table)
    }

    /// Has `action` cut devices off when a table fails in a way that nothing can repair.
    pub fn on_quarantine(&self, action: OnQuarantine) {
        *lock(&self.on_quarantine) = Some(action);
    }

    /// Cuts off the devices behind `tables`. Whoever edits a table by way of [`Pages::space`] and hears
    /// that it is quarantined calls this before the guest hears anything.
    pub fn cut_off(&self, tables: &[TableId]) {
        if let Some(action) = lock(&self.on_quarantine).as_ref() {
            action(tables);
        }
    }

    /// What has been converted so far, at how many calls.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.space().statistics()
    }

    /// The page states and the tables, for reports and checks; no conversion proceeds meanwhile.
    pub fn space(&self) -> LockedSpace<'_> {
        LockedSpace(self.held())
    }

    /// The domain of the guest's IOMMU that an endpoint is in.
    #[must_use]
    pub fn domain_of(&self, endpoint: EndpointId) -> Option<DomainId> {
        self.held().viommu.domain_of(endpoint)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    /// Converts from the start of `range`, which is DRAM, as far as one call goes.
    fn convert(&self, range: PageRange<Gpa>, to: Visibility) -> RipasProgress {
        // What an emulated device is at stays shared until it is done.
        let accesses = (to == Visibility::Private).then(|| self.accesses.write());
        let _accesses = accesses.map(|guard| guard.unwrap_or_else(PoisonError::into_inner));
        let mut space = self.space();
        if self.too_fragmented(space.states(), range, to) {
            return Self::rejected(range.start(), &TooFragmented);
        }
        let request = match space.request(range.start(), range.bytes(), to) {
            Ok(request) => request,
            Err(error) => return Self::rejected(range.start(), &error),
        };
        let mut mappings = Backing(&self.ram);
        let mut attributes;
        let memory: &mut dyn PageFlip = match &self.vm {
            None => &mut mappings,
            Some(vm) => {
                let ram = &self.ram;
                attributes = guest_memfd::Attributes { vm, ram };
                &mut attributes
            }
        };
        match space.convert(request, memory) {
            Ok(converted) => RipasProgress {
                reached: converted.end,
                response: Response::Accept,
            },
            Err(error) => {
                if let ConvertError::Damaged { damage, .. } = &error {
                    self.cut_off(&damage.tables);
                }
                Self::rejected(error.converted_to(), &error)
            }
        }
    }

    fn rejected(reached: Gpa, error: &dyn std::error::Error) -> RipasProgress {
        if let Some(skipped) = FAILURES.permit() {
            tracing::error!(skipped, "cannot convert: {}", chain(error));
        }
        RipasProgress {
            reached,
            response: Response::Reject,
        }
    }

    /// Whether the host would run out of mappings if `range` changed. A guest that is there can still
    /// move and join the extents that it has.
    fn too_fragmented(&self, states: &PageStates, range: PageRange<Gpa>, to: Visibility) -> bool {
        if states.extent_count().saturating_add(2) <= self.ram.most_extents() {
            return false;
        }
        let state_below = |boundary: Gpa| states.at(Gpa::new(boundary.raw().checked_sub(1)?));
        let (start, end) = (range.start(), range.end());
        let edges = [
            (state_below(start), states.at(start)),
            (states.at(end), state_below(end)),
        ];
        let to = Some(PageState::from(to));
        let changing = edges.iter().filter(|(_, inside)| *inside != to);
        let splits = changing
            .clone()
            .filter(|(outside, inside)| outside == inside);
        let joins = changing.filter(|(outside, _)| *outside == to);
        splits.count() > joins.count()
    }

    /// Whether all `bytes` bytes from `at`, or the byte there when it is none, are in this state.
    fn all_are(space: &AddressSpace<HostTable>, at: Gpa, bytes: usize, wanted: PageState) -> bool {
        let Some(end) = at.checked_add(bytes.max(1) as u64) else {
            return false;
        };
        let first = Gpa::new(at.raw() & !(iommu::PAGE_SIZE - 1));
        let last = end.raw().checked_next_multiple_of(iommu::PAGE_SIZE);
        let range = last.and_then(|last| PageRange::from_bounds(first, Gpa::new(last)).ok());
        range.is_some_and(|range| {
            let mut extents = space.states().now().within(range);
            space.states().covers(range) && extents.all(|(_, state)| state == wanted)
        })
    }
}

impl RealmMemory for Pages {
    fn ripas(&self, range: PageRange<Gpa>) -> (Gpa, Ripas) {
        let space = self.space();
        let first = space.states().now().within(range).next();
        match first {
            Some((run, state)) if run.start() == range.start() => (run.end(), ripas_of(state)),
            // No DRAM up to there.
            Some((run, _)) => (run.start(), Ripas::Empty),
            None => (range.end(), Ripas::Empty),
        }
    }

    fn set_ripas(&self, range: PageRange<Gpa>, change: RipasChange) -> RipasProgress {
        let dram = {
            let space = self.space();
            let dram = space.states().dram().iter();
            dram.copied().find_map(|dram| dram.intersection(range))
        };
        match dram {
            Some(dram) if dram.start() == range.start() => self.convert(
                dram,
                match change {
                    RipasChange::Empty => Visibility::Shared,
                    RipasChange::Ram => Visibility::Private,
                },
            ),
            // Where there is no DRAM all is empty for good.
            other => {
                let next = other.map_or(range.end(), PageRange::start);
                match change {
                    RipasChange::Empty => RipasProgress {
                        reached: next,
                        response: Response::Accept,
                    },
                    RipasChange::Ram => RipasProgress {
                        reached: range.start(),
                        response: Response::Reject,
                    },
                }
            }
        }
    }

    fn read_private(&self, at: Gpa, bytes: &mut [u8]) -> Result<(), NotPrivate> {
        let space = self.space();
        if !Self::all_are(&space, at, bytes.len(), PageState::Private) {
            return Err(NotPrivate);
        }
        let memory = self.ram.memory();
        let done = memory.read_slice(bytes, GuestAddress(at.raw()));
        done.map_err(|_| NotPrivate)
    }

    fn write_private(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotPrivate> {
        let space = self.space();
        if !Self::all_are(&space, at, bytes.len(), PageState::Private) {
            return Err(NotPrivate);
        }
        let memory = self.ram.memory();
        let done = memory.write_slice(bytes, GuestAddress(at.raw()));
        done.map_err(|_| NotPrivate)
    }

    fn write_shared(&self, at: Gpa, bytes: &[u8]) -> Result<(), NotShared> {
        let space = self.space();
        if !Self::all_are(&space, at, bytes.len(), PageState::Shared) {
            return Err(NotShared);
        }
        let memory = self.ram.memory();
        let done = memory.write_slice(bytes, GuestAddress(at.raw()));
        done.map_err(|_| NotShared)
    }
}

fn ripas_of(state: PageState) -> Ripas {
    match state {
        PageState::Private => Ripas::Ram,
        PageState::Shared => Ripas::Empty,
        // Nobody sees a page on its way: that takes the lock.
        PageState::Converting | PageState::Quarantined => Ripas::Destroyed,
    }
}

/// The guest has cut its memory into more pieces than the host can keep apart.
#[derive(Debug, thiserror::Error)]
#[error("guest memory is in too many pieces (the limit is sysctl vm.max_map_count)")]
struct TooFragmented;

/// The memory side of a conversion. Each flip gives fresh pages and frees the old ones at once, so
/// nothing is left to discard.
struct Backing<'a>(&'a GuestRam);

impl PageFlip for Backing<'_> {
    fn flip(&mut self, range: PageRange<Gpa>, to: Visibility) -> Result<(), HostError> {
        let done = match to {
            Visibility::Shared => self.0.share(range),
            Visibility::Private => self.0.unshare(range),
        };
        done.map_err(|error| match error {
            kvm::ram::ConvertError::NotConvertible { .. }
            | kvm::ram::ConvertError::Undone { .. } => {
                HostError::without_effect("mmap of guest memory", error)
            }
            kvm::ram::ConvertError::Torn { .. } => {
                HostError::with_unknown_effect("mmap of guest memory", error)
            }
        })
    }

    fn discard(&mut self, _: PageRange<Gpa>, _: Visibility) -> Result<(), HostError> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in between leaves a page Converting at worst: in no table.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
