//! `RSI_IPA_STATE_GET` and `RSI_IPA_STATE_SET`: which pages the guest wants protected.

use iommu::{Gpa, PageRange};

use super::rsi::{Arguments, Failure, Reply};
use super::{Realm, RealmMemory};

/// The Realm IPA state of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ripas {
    /// No protected memory here: a shared page, a device, or nothing.
    Empty = 0,
    /// Private memory.
    Ram = 1,
    /// Memory that a failed conversion has taken out of use.
    Destroyed = 2,
}

/// The state that a guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RipasChange {
    /// Share the pages.
    Empty,
    /// Make the pages private.
    Ram,
}

/// How far a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RipasProgress {
    /// The first address that the call has not dealt with: above the start of the range unless the
    /// host rejects it there. The guest calls again for the rest.
    pub reached: Gpa,
    /// Whether the host went along with it.
    pub response: Response,
}

/// The host's answer to a request of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// As asked.
    Accept = 0,
    /// Not done.
    Reject = 1,
}

impl<M: RealmMemory> Realm<M> {
    /// x1 base, x2 top; returns the end of the first run of one state, and that state.
    pub(super) fn ipa_state_get(&self, arguments: &Arguments) -> Reply {
        let [base, top, ..] = *arguments;
        let Some(range) = self.protected_range(base, top) else {
            return Failure::Input.into();
        };
        let (end, ripas) = self.memory.ripas(range);
        Reply::success([end.raw(), ripas as u64])
    }

    /// x1 base, x2 top, x3 state, x4 flags; returns how far it came, and the host's response.
    ///
    /// The flags say whether a destroyed page may change; there is no way back for those here.
    pub(super) fn ipa_state_set(&self, arguments: &Arguments) -> Reply {
        let [base, top, state, ..] = *arguments;
        let change = match state {
            0 => RipasChange::Empty,
            1 => RipasChange::Ram,
            _ => return Failure::Input.into(),
        };
        let Some(range) = self.protected_range(base, top) else {
            return Failure::Input.into();
        };
        let progress = self.memory.set_ripas(range, change);
        Reply::success([progress.reached.raw(), progress.response as u64])
    }

    /// The range, when it is made of whole pages of the protected half.
    pub(super) fn protected_range(&self, base: u64, top: u64) -> Option<PageRange<Gpa>> {
        let range = PageRange::from_bounds(Gpa::new(base), Gpa::new(top)).ok()?;
        self.is_protected(range.last()).then_some(range)
    }
}
