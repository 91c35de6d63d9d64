//! The features that were agreed, for those who serve the rings.

use std::sync::{Arc, Mutex, PoisonError};

/// What the driver has accepted since the last reset. Clones are handles to the same one.
///
/// It is renewed while no ring is served: a turn that begins afterwards finds it, and with it learns
/// that chains of an earlier ring are gone.
#[derive(Debug, Clone, Default)]
pub struct Agreement(Arc<Mutex<Current>>);

#[derive(Debug, Clone, Copy, Default)]
struct Current {
    life: u64,
    features: u64,
}

impl Agreement {
    pub(super) fn renew(&self, features: u64) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.life = current.life.wrapping_add(1);
        current.features = features;
    }

    /// The features, if they were agreed after `life`, which follows.
    pub(super) fn newer(&self, life: &mut u64) -> Option<u64> {
        let current = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(life, current.life);
        (before != current.life).then_some(current.features)
    }
}
