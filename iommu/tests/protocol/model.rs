//! States, actions and promises.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use iommu::space::RedirectError;
use iommu::{
    AddressSpace, Alias, Binding, ConvertError, DomainId, Gpa, Health, Iova, Ipa, PAGE_SIZE,
    PageRange, PageState, Reserved, SharedBit, Table, TableId, TableSpec, Translation, Visibility,
};
use stateright::{Model, Property};

use crate::host::{Effect, Fault, HostTable, Memory, Shared};

/// Pages of DRAM.
const PAGES: usize = 2;
/// Devices: the first without a guest IOMMU, the second in a domain of the guest's.
const DEVICES: usize = 2;
/// The page number of the first shared name.
const SHARED_HALF: u64 = 16;
/// The page of IOVA that the guest maps in its domain, to the shared name of page 0.
const MAPPED_AT: u64 = 5;
const DOMAIN: DomainId = DomainId::new(1);

/// The protocol, or a variant of it that is known to be wrong.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) unmap_waits: bool,
    pub(crate) guest: Guest,
    /// Host calls that fail in one run.
    pub(crate) faults: u8,
}

/// What the guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guest {
    /// It takes back what it shared as it shared it, as Linux does.
    ConvertsWhatItConverted,
    /// It converts as it likes.
    ConvertsAnyRange,
}

impl Protocol {
    pub(crate) fn sound() -> Self {
        Self {
            unmap_waits: true,
            guest: Guest::ConvertsWhatItConverted,
            faults: 2,
        }
    }
}

/// A request to ccvm, by whichever vCPU or thread has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    Convert { gpa: u64, pages: u64, shared: bool },
    Accept(usize),
    Stop(usize),
    Map,
    Unmap,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A request takes the lock; these of its host calls will fail.
    Begin(Request, Vec<(usize, Fault)>),
    /// The next host call of the request takes effect, or the request ends.
    Step,
    /// A device has an address translated.
    Translate(usize, u64),
    /// Its access reaches memory.
    Access(usize),
}

/// The product's own state. Two are the same when they cannot be told apart from now on.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    space: AddressSpace<HostTable>,
    tables: [TableId; DEVICES],
}

/// A request under way: its code has run, its calls have yet to take effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Running {
    request: Request,
    effects: Vec<Effect>,
    succeeded: bool,
    /// Translations of shared pages, by device, that hold before and after and that the guest has not
    /// asked to lose.
    steady: BTreeSet<(usize, u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    core: Core,
    running: Option<Running>,
    /// Stage 2: whether each page is shared.
    shared: [bool; PAGES],
    /// What each device's IOMMU translates.
    translated: [BTreeMap<u64, u64>; DEVICES],
    /// Whether the guest lets a device see private pages.
    consent: [bool; DEVICES],
    /// The page that an access on its way will reach, and the IOVA it was translated from.
    flying: [Option<(u64, u64)>; DEVICES],
    faults: u8,
    exposed: bool,
    lied: bool,
}

impl Request {
    /// Whether the guest asks for a page to go: if that fails it is back only at the end.
    fn takes(self, iova: u64, page: u64) -> bool {
        match self {
            Self::Convert { gpa, pages, .. } => (gpa..gpa + pages).contains(&page),
            Self::Unmap => iova == MAPPED_AT,
            Self::Accept(_) | Self::Stop(_) | Self::Map => false,
        }
    }
}

impl Core {
    fn new() -> Self {
        let bit = SharedBit::new(16).unwrap();
        let dram = [PageRange::new(Gpa::new(0), 2 * PAGE_SIZE).unwrap()];
        let alias = Alias::SharedBit(bit);
        let mut space = AddressSpace::new(dram, Visibility::Private, alias).unwrap();
        space.create_domain(DOMAIN).unwrap();
        let mut attach = |device, binding| {
            let spec = TableSpec {
                table: Table::T0,
                binding,
                reserved: Reserved::default(),
                reach: Iova::new(u64::MAX),
                entry_limit: None,
            };
            let script = Shared::default();
            space.attach(HostTable { device, script }, spec).unwrap()
        };
        let tables = [
            attach(0, Binding::Identity),
            attach(1, Binding::Domain(DOMAIN)),
        ];
        Self { space, tables }
    }

    /// Runs a request's code and returns whether it says that it has succeeded.
    fn run(&mut self, request: Request, script: &Shared) -> bool {
        for id in self.tables {
            self.space.host_mut(id).unwrap().script = script.clone();
        }
        match request {
            Request::Convert { gpa, pages, shared } => {
                let to = if shared {
                    Visibility::Shared
                } else {
                    Visibility::Private
                };
                let start = Gpa::new(gpa * PAGE_SIZE);
                let asked = self.space.request(start, pages * PAGE_SIZE, to).unwrap();
                let result = self.space.convert(asked, &mut Memory(script.clone()));
                if let Err(ConvertError::Refused { .. }) = result {
                    assert_ne!(self.state(gpa), PageState::Quarantined);
                }
                result.is_ok()
            }
            Request::Accept(device) => self.switch(device, Table::T1),
            Request::Stop(device) => self.switch(device, Table::T0),
            Request::Map => {
                let mapping = Translation {
                    iova: mapped_range(),
                    name: Ipa::new(SHARED_HALF * PAGE_SIZE),
                    access: iommu::Access::ReadWrite,
                };
                self.space.map(DOMAIN, mapping).is_ok()
            }
            Request::Unmap => self.space.unmap(DOMAIN, mapped_range()).is_ok(),
        }
    }

    fn switch(&mut self, device: usize, to: Table) -> bool {
        let result = self.space.switch(self.tables[device], to);
        if let Err(RedirectError::Refused { .. }) = result {
            assert_ne!(self.role(device), to);
        }
        result.is_ok()
    }

    fn state(&self, page: u64) -> PageState {
        self.space.states().at(Gpa::new(page * PAGE_SIZE)).unwrap()
    }

    fn role(&self, device: usize) -> Table {
        self.space.role(self.tables[device]).unwrap()
    }

    fn is_sound(&self, device: usize) -> bool {
        self.space.health(self.tables[device]) == Some(Health::Sound)
    }

    /// The record of a device's table, page by page.
    fn recorded(&self, device: usize) -> BTreeMap<u64, u64> {
        let mapped = self.space.mapped(self.tables[device]).unwrap();
        let pages = mapped.iter().flat_map(|mapping| {
            let iova = mapping.iova.start().raw() / PAGE_SIZE;
            let gpa = mapping.gpa.raw() / PAGE_SIZE;
            (0..mapping.iova.pages()).map(move |page| (iova + page, gpa + page))
        });
        pages.collect()
    }

    /// Translations of shared pages in sound tables, by device.
    fn shared_translations(&self) -> BTreeSet<(usize, u64, u64)> {
        let sound = (0..DEVICES).filter(|device| self.is_sound(*device));
        let all = sound.flat_map(|device| {
            let recorded = self.recorded(device).into_iter();
            recorded.map(move |(iova, gpa)| (device, iova, gpa))
        });
        all.filter(|(_, _, gpa)| self.state(*gpa) == PageState::Shared)
            .collect()
    }

    /// All that the future depends on.
    fn essence(&self) -> impl Hash + Eq + use<> {
        let states = [self.state(0), self.state(1)];
        let tables: Vec<_> = (0..DEVICES)
            .map(|device| {
                let mapped = self.space.mapped(self.tables[device]).unwrap();
                let mapped: Vec<_> = mapped.iter().map(|m| (m.iova, m.gpa)).collect();
                (self.role(device), self.is_sound(device), mapped)
            })
            .collect();
        (states, tables, self.space.domain(DOMAIN).unwrap().len())
    }
}

impl PartialEq for Core {
    fn eq(&self, other: &Self) -> bool {
        self.essence() == other.essence()
    }
}

impl Eq for Core {}

impl Hash for Core {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.essence().hash(state);
    }
}

impl Protocol {
    fn requests(&self, state: &State) -> Vec<Request> {
        let mut requests = Vec::new();
        let ranges: &[(u64, u64)] = match self.guest {
            Guest::ConvertsWhatItConverted => &[(0, 1), (1, 1)],
            Guest::ConvertsAnyRange => &[(0, 1), (1, 1), (0, 2)],
        };
        for &(gpa, pages) in ranges {
            for shared in [false, true] {
                requests.push(Request::Convert { gpa, pages, shared });
            }
        }
        for (device, consent) in state.consent.into_iter().enumerate() {
            requests.push(if consent {
                Request::Stop(device)
            } else {
                Request::Accept(device)
            });
        }
        requests.extend([Request::Map, Request::Unmap]);
        requests
    }

    /// Ways for a request of so many calls to fail, with one failure or two.
    fn failures(calls: usize, faults: u8) -> Vec<Vec<(usize, Fault)>> {
        let kinds = [Fault::Refused, Fault::Lost, Fault::Done];
        let mut ways = vec![Vec::new()];
        if faults >= 1 {
            for call in 0..calls {
                ways.extend(kinds.map(|kind| vec![(call, kind)]));
            }
        }
        if faults >= 2 {
            for call in 0..calls {
                // The second may hit what undoes the first, which makes calls of its own.
                for second in call + 1..=call + calls {
                    ways.push(vec![(call, Fault::Refused), (second, Fault::Refused)]);
                    ways.push(vec![(call, Fault::Done), (second, Fault::Refused)]);
                }
            }
        }
        ways
    }

    fn begin(state: &State, request: Request, faults: &[(usize, Fault)]) -> State {
        let mut next = state.clone();
        let script = Shared::failing(faults.iter().copied());
        let succeeded = next.core.run(request, &script);
        let script = script.take();
        let before = state.core.shared_translations();
        let after = next.core.shared_translations();
        next.lied |= succeeded && script.failed > 0;
        next.faults -= u8::try_from(script.failed).unwrap().min(next.faults);
        if let Request::Accept(device) = request {
            next.consent[device] = true;
        }
        next.running = Some(Running {
            request,
            effects: script.effects,
            succeeded,
            steady: before
                .intersection(&after)
                .filter(|(_, iova, gpa)| !request.takes(*iova, *gpa))
                .copied()
                .collect(),
        });
        next
    }

    fn step(&self, state: &State) -> Option<State> {
        let mut next = state.clone();
        let running = next.running.as_mut()?;
        if running.effects.is_empty() {
            return Some(Self::end(next));
        }
        match running.effects.remove(0) {
            Effect::Map {
                device,
                iova,
                pages,
                gpa,
            } => {
                for page in 0..pages {
                    next.translated[device].insert(iova + page, gpa + page);
                }
            }
            Effect::Unmap {
                device,
                iova,
                pages,
            } => {
                let inside = |page: u64| (iova..iova + pages).contains(&page);
                let flying = next.flying[device].is_some_and(|(_, from)| inside(from));
                if flying && self.unmap_waits {
                    return None;
                }
                next.translated[device].retain(|page, _| !inside(*page));
            }
            Effect::Flip { gpa, pages, shared } => {
                for page in gpa..gpa + pages {
                    next.shared[usize::try_from(page).ok()?] = shared;
                }
            }
        }
        Some(next)
    }

    fn end(mut state: State) -> State {
        let Some(running) = state.running.take() else {
            return state;
        };
        for device in 0..DEVICES {
            // A device that is quarantined is cut off; until then the guest is on its guard.
            state.consent[device] = state.core.role(device) == Table::T1;
            if state.core.is_sound(device) {
                state.lied |= state.translated[device] != state.core.recorded(device);
            }
        }
        if let Request::Convert { gpa, pages, shared } = running.request
            && running.succeeded
        {
            for page in gpa..gpa + pages {
                let index = usize::try_from(page).unwrap_or_default();
                state.lied |= state.shared[index] != shared;
            }
        }
        state.lied |= state.core.space.check().is_err();
        state
    }
}

fn mapped_range() -> PageRange<Iova> {
    PageRange::new(Iova::new(MAPPED_AT * PAGE_SIZE), PAGE_SIZE).unwrap()
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            core: Core::new(),
            running: None,
            shared: [false; PAGES],
            translated: [BTreeMap::new(), BTreeMap::new()],
            consent: [false; DEVICES],
            flying: [None; DEVICES],
            faults: self.faults,
            exposed: false,
            lied: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.running.is_some() {
            actions.push(Action::Step);
        } else {
            for request in self.requests(state) {
                let script = Shared::default();
                let _outcome = state.core.clone().run(request, &script);
                for faults in Self::failures(script.calls(), state.faults) {
                    actions.push(Action::Begin(request, faults));
                }
            }
        }
        for (device, flying) in state.flying.iter().enumerate() {
            if flying.is_some() {
                actions.push(Action::Access(device));
            } else {
                let iovas = state.translated[device].keys();
                actions.extend(iovas.map(|iova| Action::Translate(device, *iova)));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        match action {
            Action::Begin(request, faults) => Some(Self::begin(state, request, &faults)),
            Action::Step => self.step(state),
            Action::Translate(device, iova) => {
                let mut next = state.clone();
                let gpa = *state.translated[device].get(&iova)?;
                next.flying[device] = Some((gpa, iova));
                Some(next)
            }
            Action::Access(device) => {
                let mut next = state.clone();
                let (gpa, _) = next.flying[device].take()?;
                let private = !next.shared[usize::try_from(gpa).ok()?];
                next.exposed |= private && !next.consent[device];
                Some(next)
            }
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "a T0 device never reaches a private page",
                |_, state: &State| !state.exposed,
            ),
            Property::always(
                "an accepted device never loses a shared page",
                |_, state: &State| {
                    let Some(running) = &state.running else {
                        return true;
                    };
                    let mut steady = running.steady.iter();
                    steady.all(|(device, iova, gpa)| {
                        state.translated[*device].get(iova) == Some(gpa) || !state.consent[*device]
                    })
                },
            ),
            Property::always("no success after a failed step", |_, state: &State| {
                !state.lied
            }),
            Property::sometimes("a page is shared and taken back", |_, state: &State| {
                let running = state.running.as_ref();
                running.is_some_and(|running| {
                    let private = matches!(running.request, Request::Convert { shared: false, .. });
                    private && running.succeeded && state.shared.contains(&true)
                })
            }),
            Property::sometimes(
                "an accepted device has DMA under way",
                |_, state: &State| {
                    state.consent[0] && state.flying[0].is_some() && state.running.is_some()
                },
            ),
            Property::sometimes("a table is quarantined", |_, state: &State| {
                !state.core.is_sound(0)
            }),
            Property::sometimes("a page is quarantined", |_, state: &State| {
                state.core.state(0) == PageState::Quarantined
            }),
        ]
    }
}
