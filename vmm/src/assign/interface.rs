//! The interfaces (TDIs) of assigned devices, for whoever plays the TSM or asks for its services: the
//! control socket, and the guest of an emulated Realm by its VDEV calls.
//!
//! ```text
//!   ctl, VDEV calls ─► Interfaces ─► function: state, what is held back ─► Switch ─► table to T1 or T0
//!                                        ▲
//!   guest's configuration writes ────────┘
//! ```
//! Lock order: the function, then the pages.
//!
//! On a host without a TSM ccvm's own plays it. It keeps to the rules of TDISP and **proves nothing
//! about a device's identity**: nobody has talked SPDM to the device, and nothing is measured.

mod realm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use devices::passthrough::tdi::{Incident, InterfaceReport, Nonce};
use devices::passthrough::{
    Acceptance, AcceptanceError, InterfaceStatus, PassthroughFunction, TrustedDma,
};
use devices::pci::Bdf;
use iommu::space::RedirectError;
use iommu::{Health, Table, TableId};

use super::replacement::Replacement;
use crate::convert::Pages;
use crate::host::facts::PciAddress;
use crate::random;

/// Who locks, reports and starts interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tsm {
    /// ccvm itself.
    BuiltIn,
}

impl fmt::Display for Tsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in: proves nothing about a device's identity"),
        }
    }
}

/// Why an interface did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The guest sees no assigned device there.
    #[error("no assigned device is at {0} of the guest")]
    NoDevice(Bdf),
    /// Accepting the device would accept others with it.
    #[error("{device} shares its IOMMU group and DMA table with {}: none of them can be accepted", .others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    SharedTable {
        /// The device, on the host.
        device: PciAddress,
        /// The others of its group.
        others: Vec<PciAddress>,
    },
    /// A nonce must not be guessed.
    #[error("the host gives no random numbers")]
    Random(#[source] io::Error),
    /// As the device or the host says.
    #[error(transparent)]
    Interface(#[from] devices::passthrough::InterfaceError),
}

/// An assigned device with an interface.
pub(super) struct Entry {
    /// Its address on the host.
    host: PciAddress,
    /// The others behind its table.
    others: Vec<PciAddress>,
    function: Arc<Mutex<PassthroughFunction>>,
    /// The nonce of the last lock; taken after the function.
    nonce: Mutex<Option<Nonce>>,
}

/// The interfaces of a VM's assigned devices, by the address at which the guest sees the device.
#[derive(Default)]
pub struct Interfaces {
    // Taken before a function's lock, and held for no call.
    entries: RwLock<BTreeMap<Bdf, Arc<Entry>>>,
}

impl Interfaces {
    /// A device is on the guest's bus from now on.
    pub(super) fn insert(&self, guest: Bdf, entry: Entry) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(guest, Arc::new(entry));
    }

    /// A device has left the guest's bus.
    pub(super) fn remove(&self, guest: Bdf) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&guest);
    }

    /// Who plays the TSM.
    #[must_use]
    pub fn tsm(&self) -> Tsm {
        Tsm::BuiltIn
    }

    /// Where the guest sees a device of the host, if the VM has it.
    #[must_use]
    pub fn guest_of(&self, host: PciAddress) -> Option<Bdf> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries = entries.iter();
        entries.find_map(|(guest, entry)| (entry.host == host).then_some(*guest))
    }

    /// How an interface is doing; `None` where the VM has no private memory to protect.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn status(&self, device: Bdf) -> Result<Option<InterfaceStatus>, InterfaceError> {
        Ok(self.entry(device)?.checked().interface())
    }

    /// Locks an interface: what is reported of it from now on stays so.
    ///
    /// # Errors
    /// When it is not unlocked, its BARs overlap, or it shares its DMA table.
    pub fn lock(&self, device: Bdf) -> Result<Nonce, InterfaceError> {
        let entry = self.entry(device)?;
        let mut function = entry.function();
        if !entry.others.is_empty() && function.interface().is_some() {
            return Err(InterfaceError::SharedTable {
                device: entry.host,
                others: entry.others.clone(),
            });
        }
        let nonce = fresh_nonce().map_err(InterfaceError::Random)?;
        function.lock_interface(nonce)?;
        *entry.nonce() = Some(nonce);
        tracing::warn!("{}: interface locked; TSM {}", entry.host, self.tsm());
        Ok(nonce)
    }

    /// The nonce of the last lock, as a TSM keeps it for the start: what says that the interface which
    /// is started is the one that was looked at is the number of [`InterfaceStatus::locks`].
    ///
    /// # Errors
    /// When there is no such device.
    pub fn last_nonce(&self, device: Bdf) -> Result<Option<Nonce>, InterfaceError> {
        Ok(*self.entry(device)?.nonce())
    }

    /// What the guest is told of a locked interface.
    ///
    /// # Errors
    /// When it is not locked.
    pub fn report(&self, device: Bdf) -> Result<InterfaceReport, InterfaceError> {
        Ok(self.entry(device)?.checked().interface_report()?)
    }

    /// Accepts a device: its interface runs, and it reaches private pages. Returns how long that took.
    ///
    /// # Errors
    /// When it is not locked, the nonce is not the one of its lock, or the host cannot follow: then it
    /// is still locked and reaches shared pages, or was cut off and is in ERROR.
    pub fn accept(&self, device: Bdf, nonce: &Nonce) -> Result<Duration, InterfaceError> {
        let entry = self.entry(device)?;
        let mut function = entry.checked();
        let begun = Instant::now();
        function.set_trusted_dma(TrustedDma::Enabled)?;
        function.start_interface(nonce)?;
        Ok(begun.elapsed())
    }

    /// Starts an interface without letting it reach private pages before
    /// [`Interfaces::set_trusted_dma`] allows that as well.
    ///
    /// # Errors
    /// As [`Interfaces::accept`].
    pub fn start(&self, device: Bdf, nonce: &Nonce) -> Result<(), InterfaceError> {
        Ok(self.entry(device)?.checked().start_interface(nonce)?)
    }

    /// Lets a locked or running interface reach private pages while it runs, or takes that back.
    ///
    /// # Errors
    /// When it is not locked, or the host cannot follow.
    pub fn set_trusted_dma(&self, device: Bdf, dma: TrustedDma) -> Result<(), InterfaceError> {
        Ok(self.entry(device)?.checked().set_trusted_dma(dma)?)
    }

    /// Stops an interface, whatever state it is in: private pages are out of its reach. Returns how
    /// long that took.
    ///
    /// # Errors
    /// When the host could not take private pages away: the device has been cut off.
    pub fn stop(&self, device: Bdf) -> Result<Duration, InterfaceError> {
        let entry = self.entry(device)?;
        let mut function = entry.checked();
        let begun = Instant::now();
        function.stop_interface()?;
        Ok(begun.elapsed())
    }

    /// Tells an interface of what has befallen it.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn suffer(&self, device: Bdf, incident: Incident) -> Result<(), InterfaceError> {
        self.entry(device)?.checked().suffer(incident);
        Ok(())
    }

    fn entry(&self, device: Bdf) -> Result<Arc<Entry>, InterfaceError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&device).cloned();
        entry.ok_or(InterfaceError::NoDevice(device))
    }
}

impl Entry {
    pub(super) fn new(
        host: PciAddress,
        others: Vec<PciAddress>,
        function: Arc<Mutex<PassthroughFunction>>,
    ) -> Self {
        Self {
            host,
            others,
            function,
            nonce: Mutex::new(None),
        }
    }

    fn nonce(&self) -> MutexGuard<'_, Option<Nonce>> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The function, which has noticed what has befallen it.
    fn checked(&self) -> MutexGuard<'_, PassthroughFunction> {
        let mut function = self.function();
        function.check_interface();
        function
    }

    /// A function that panicked has left consistent-enough registers behind: the guest's problem.
    fn function(&self) -> MutexGuard<'_, PassthroughFunction> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh_nonce() -> io::Result<Nonce> {
    random::bytes().map(Nonce)
}

/// How a device comes to be under T1, and back.
pub(super) enum Switch {
    /// One host table is both: private pages are added to it and taken away, and shared ones stay where
    /// they are, so that no DMA to them ever faults.
    InPlace {
        /// The owner of the tables.
        pages: Arc<Pages>,
        /// The device's.
        table: TableId,
    },
    /// Two host tables, between which the device is moved: where the IOMMU does that in one step.
    Replace(Replacement),
    /// T1 is the Realm's own table, which the RMM keeps: ccvm has no way to put a device under it.
    OfTheRmm,
}

/// Why a device of a Realm stays untrusted.
#[derive(Debug, thiserror::Error)]
#[error(
    "the table of a Realm's accepted devices is the RMM's, and this kernel has no interface to it: the \
     device goes on reaching shared pages only"
)]
struct TableOfTheRmm;

impl Acceptance for Switch {
    fn put_under(&mut self, to: Table) -> Result<(), AcceptanceError> {
        let (pages, table) = match self {
            Self::InPlace { pages, table } => (pages, table),
            Self::Replace(replacement) => return replacement.put_under(to),
            Self::OfTheRmm if to == Table::T0 => return Ok(()),
            Self::OfTheRmm => return Err(AcceptanceError::Refused(Box::new(TableOfTheRmm))),
        };
        let mut space = pages.space();
        let Err(error) = space.switch(*table, to) else {
            return Ok(());
        };
        let as_before = matches!(
            error,
            RedirectError::Refused { .. } | RedirectError::Unsuitable { .. }
        );
        // A device that keeps private pages in its reach is not stopped.
        if as_before && to == Table::T1 {
            return Err(AcceptanceError::Refused(Box::new(error)));
        }
        pages.cut_off(&[*table]);
        Err(AcceptanceError::CutOff(Box::new(error)))
    }

    fn is_sound(&self) -> bool {
        match self {
            Self::InPlace { pages, table } => pages.space().health(*table) == Some(Health::Sound),
            Self::Replace(replacement) => replacement.is_sound(),
            Self::OfTheRmm => true,
        }
    }
}
