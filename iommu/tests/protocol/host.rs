//! The host as the model sees it: a script of failures going in, a trace of calls coming out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use iommu::{Access, DmaTable, Gpa, HostError, Iova, PAGE_SIZE, PageFlip, PageRange, Visibility};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// Without effect.
    Refused,
    /// With unknown effect; nothing was done.
    Lost,
    /// With unknown effect; all was done.
    Done,
}

/// One effect on the host. Numbers are pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    Map {
        device: usize,
        iova: u64,
        pages: u64,
        gpa: u64,
    },
    Unmap {
        device: usize,
        iova: u64,
        pages: u64,
    },
    Flip {
        gpa: u64,
        pages: u64,
        shared: bool,
    },
}

/// The calls of one request.
#[derive(Debug, Default)]
pub(crate) struct Script {
    faults: BTreeMap<usize, Fault>,
    calls: usize,
    /// How many calls failed.
    pub(crate) failed: usize,
    /// What the calls did, in order.
    pub(crate) effects: Vec<Effect>,
}

/// A script that every part of one host reads and writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Script>>);

impl Shared {
    pub(crate) fn failing(faults: impl IntoIterator<Item = (usize, Fault)>) -> Self {
        Self(Arc::new(Mutex::new(Script {
            faults: faults.into_iter().collect(),
            ..Script::default()
        })))
    }

    pub(crate) fn calls(&self) -> usize {
        self.script().calls
    }

    pub(crate) fn take(&self) -> Script {
        std::mem::take(&mut self.script())
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, name: &'static str, effect: Option<Effect>) -> Result<(), HostError> {
        let mut script = self.script();
        let number = script.calls;
        script.calls += 1;
        let fault = script.faults.get(&number).copied();
        if matches!(fault, None | Some(Fault::Done)) {
            script.effects.extend(effect);
        }
        let Some(fault) = fault else { return Ok(()) };
        script.failed += 1;
        Err(match fault {
            Fault::Refused => HostError::without_effect(name, "scripted"),
            Fault::Lost | Fault::Done => HostError::with_unknown_effect(name, "scripted"),
        })
    }
}

/// The DMA table of one device.
#[derive(Debug, Clone)]
pub(crate) struct HostTable {
    pub(crate) device: usize,
    pub(crate) script: Shared,
}

impl DmaTable for HostTable {
    fn map(&mut self, iova: PageRange<Iova>, gpa: Gpa, _: Access) -> Result<(), HostError> {
        let effect = Effect::Map {
            device: self.device,
            iova: iova.start().raw() / PAGE_SIZE,
            pages: iova.pages(),
            gpa: gpa.raw() / PAGE_SIZE,
        };
        self.script.call("map", Some(effect))
    }

    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        let effect = Effect::Unmap {
            device: self.device,
            iova: iova.start().raw() / PAGE_SIZE,
            pages: iova.pages(),
        };
        self.script.call("unmap", Some(effect))
    }
}

/// Guest memory.
pub(crate) struct Memory(pub(crate) Shared);

impl PageFlip for Memory {
    fn flip(&mut self, range: PageRange<Gpa>, to: Visibility) -> Result<(), HostError> {
        let effect = Effect::Flip {
            gpa: range.start().raw() / PAGE_SIZE,
            pages: range.pages(),
            shared: to == Visibility::Shared,
        };
        self.0.call("flip", Some(effect))
    }

    fn discard(&mut self, _: PageRange<Gpa>, _: Visibility) -> Result<(), HostError> {
        self.0.call("discard", None)
    }
}
