//! How many faults each device has had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::HostFault;
use crate::host::facts::PciAddress;

/// The faults that have been heard of. Clones are handles to the same counts.
#[derive(Debug, Clone, Default)]
pub struct FaultTally(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    devices: BTreeMap<PciAddress, DeviceFaults>,
    hearing: Hearing,
}

/// The faults of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceFaults {
    /// How many, at least.
    pub count: u64,
    /// The last of them.
    pub last: Option<HostFault>,
}

/// Whether faults are heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hearing {
    /// Why the kernel's log is not read, if it is not.
    pub deaf: Option<String>,
    /// Records that were overwritten before they could be read.
    pub lost: u64,
}

impl FaultTally {
    /// What a device has had.
    #[must_use]
    pub fn of(&self, device: PciAddress) -> DeviceFaults {
        self.counts()
            .devices
            .get(&device)
            .copied()
            .unwrap_or_default()
    }

    /// Whether faults are heard of.
    #[must_use]
    pub fn hearing(&self) -> Hearing {
        self.counts().hearing.clone()
    }

    pub(super) fn add(&self, fault: HostFault) {
        let mut counts = self.counts();
        let device = counts.devices.entry(fault.device).or_default();
        device.count = device.count.saturating_add(1);
        device.last = Some(fault);
    }

    pub(super) fn lose(&self) {
        let mut counts = self.counts();
        counts.hearing.lost = counts.hearing.lost.saturating_add(1);
    }

    pub(super) fn go_deaf(&self, why: String) {
        self.counts().hearing.deaf = Some(why);
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
