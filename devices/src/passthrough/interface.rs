//! The device interface of a passed-through function, and what befalls it.
//!
//! The function is locked by whoever owns it; in here an interface is moved in one order only, so that
//! no DMA faults that need not: what the device may reach is widened before the state says so and
//! narrowed before the state stops to.

#[cfg(test)]
mod tests;

use std::error::Error;

use iommu::{PAGE_SIZE, Table};

use super::function::PassthroughFunction;
use super::lockdown::{self, Lockdown, Withheld};
use super::tdi::{
    Event, Incident, InterfaceInfo, InterfaceReport, MmioAttributes, MmioRange, Nonce, Refusal,
    Tdi, TdiState,
};
use crate::pci::{AddressSpace, Bar, TableLocation};
use crate::rate_limit::RateLimit;

static WITHHELD: RateLimit = RateLimit::per_second(5);
static FAILED: RateLimit = RateLimit::per_second(5);

/// Puts the function's DMA under one of the two tables of its domain.
pub trait Acceptance: Send {
    /// Lets it reach what `table` holds; shared pages stay in its reach all the time.
    ///
    /// # Errors
    /// [`AcceptanceError`] says what it reaches now.
    fn put_under(&mut self, table: Table) -> Result<(), AcceptanceError>;

    /// Whether its tables are as they should be; otherwise it has been cut off.
    fn is_sound(&self) -> bool;
}

/// Why a function's DMA is not under the table that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AcceptanceError {
    /// It is under the table that it was under before.
    #[error("the device reaches what it did before")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// What it could reach is not known: it has been cut off from memory.
    #[error("the device has been cut off from memory")]
    CutOff(#[source] Box<dyn Error + Send + Sync>),
}

/// Why an interface did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The function has no interface: its VM has no private memory.
    #[error("the device has no interface: its VM has no private memory to protect")]
    NoInterface,
    /// As the device would answer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host did not follow.
    #[error(transparent)]
    Host(#[from] AcceptanceError),
}

/// Whether the guest lets a running interface reach its private pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedDma {
    /// Not yet, or no more.
    Disabled,
    /// From the moment that it runs.
    Enabled,
}

/// How an interface is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its state.
    pub state: TdiState,
    /// Whether the guest lets it reach private pages.
    pub dma: TrustedDma,
    /// The table that its DMA is under.
    pub table: Table,
    /// How often it has been locked.
    pub locks: u64,
    /// Writes of the guest that were kept from the device.
    pub withheld: u64,
    /// What failed it last, if anything has since it was locked.
    pub failed_by: Option<Incident>,
}

/// The interface of one function.
pub(super) struct Interface {
    tdi: Tdi,
    dma: TrustedDma,
    table: Table,
    acceptance: Box<dyn Acceptance>,
    locks: u64,
    withheld: u64,
    failed_by: Option<Incident>,
}

impl Interface {
    /// Unlocked, under T0.
    pub(super) fn new(acceptance: Box<dyn Acceptance>) -> Self {
        Self {
            tdi: Tdi::default(),
            dma: TrustedDma::Disabled,
            table: Table::T0,
            acceptance,
            locks: 0,
            withheld: 0,
            failed_by: None,
        }
    }

    /// Goes over to a state, once the host has followed.
    fn go_to(&mut self, tdi: Tdi, dma: TrustedDma) -> Result<(), AcceptanceError> {
        let wanted = match (tdi.state(), dma) {
            (TdiState::Run, TrustedDma::Enabled) => Table::T1,
            _ => Table::T0,
        };
        if wanted != self.table {
            let moved = self.acceptance.put_under(wanted);
            if let Err(AcceptanceError::CutOff(_)) = &moved {
                // Stopping it has something to take away, whatever that is.
                self.table = Table::T1;
                self.tdi.suffer(Incident::SessionEnded);
                self.failed_by = Some(Incident::SessionEnded);
            }
            moved?;
        }
        self.table = wanted;
        self.tdi = tdi;
        self.dma = dma;
        Ok(())
    }
}

impl PassthroughFunction {
    /// How the interface is doing; `None` when the function has none.
    #[must_use]
    pub fn interface(&self) -> Option<InterfaceStatus> {
        let interface = self.interface.as_ref()?;
        Some(InterfaceStatus {
            state: interface.tdi.state(),
            dma: interface.dma,
            table: interface.table,
            locks: interface.locks,
            withheld: interface.withheld,
            failed_by: interface.failed_by,
        })
    }

    /// `LOCK_INTERFACE_REQUEST`: what is reported from now on stays so. `nonce` is fresh.
    ///
    /// # Errors
    /// When it is not unlocked, or its BARs overlap.
    pub fn lock_interface(&mut self, nonce: Nonce) -> Result<(), InterfaceError> {
        let overlap = lockdown::overlap(&self.layout.bars, &self.space);
        let interface = self.interface_mut()?;
        let mut tdi = interface.tdi;
        tdi.lock(nonce)?;
        if overlap {
            return Err(Refusal::InvalidDeviceConfiguration.into());
        }
        interface.tdi = tdi;
        interface.dma = TrustedDma::Disabled;
        interface.locks = interface.locks.saturating_add(1);
        interface.failed_by = None;
        self.lockdown = Some(Lockdown::new(&self.layout.bars, &self.space));
        Ok(())
    }

    /// `START_INTERFACE_REQUEST`. The device reaches private pages when this has succeeded and the
    /// guest has enabled that.
    ///
    /// # Errors
    /// When it is not locked, the nonce is another one, or the host cannot follow: then it is still
    /// locked, unless it had to be cut off.
    pub fn start_interface(&mut self, nonce: &Nonce) -> Result<(), InterfaceError> {
        let interface = self.interface_mut()?;
        let mut tdi = interface.tdi;
        tdi.start(nonce)?;
        let moved = interface.go_to(tdi, interface.dma);
        self.after_move(moved)
    }

    /// Lets a running interface reach private pages, or takes that back.
    ///
    /// # Errors
    /// When it is not locked, or the host cannot follow.
    pub fn set_trusted_dma(&mut self, dma: TrustedDma) -> Result<(), InterfaceError> {
        let interface = self.interface_mut()?;
        let state = interface.tdi.state();
        if dma == TrustedDma::Enabled && !state.is_locked() {
            return Err(Refusal::InvalidInterfaceState(state).into());
        }
        let moved = interface.go_to(interface.tdi, dma);
        self.after_move(moved)
    }

    /// `STOP_INTERFACE_REQUEST`: private pages are out of reach, then the configuration is free.
    ///
    /// # Errors
    /// When the host could not take private pages away: the device has been cut off.
    pub fn stop_interface(&mut self) -> Result<(), InterfaceError> {
        let interface = self.interface_mut()?;
        let mut tdi = interface.tdi;
        tdi.take(Event::Stop)?;
        let moved = interface.go_to(tdi, TrustedDma::Disabled);
        self.after_move(moved)
    }

    /// What the guest is told of the locked interface.
    ///
    /// # Errors
    /// When it is not locked.
    pub fn interface_report(&self) -> Result<InterfaceReport, InterfaceError> {
        let interface = self.interface.as_ref();
        let mut tdi = interface.ok_or(InterfaceError::NoInterface)?.tdi;
        tdi.take(Event::GetReport)?;
        let bars = self.layout.bars.iter();
        let memory = bars.filter(|bar| bar.space() == AddressSpace::Memory);
        let msix = self.layout.msix;
        Ok(InterfaceReport {
            info: InterfaceInfo {
                dma_without_pasid: true,
                ..InterfaceInfo::default()
            },
            msix_control: msix.map_or(0, |msix| msix.control(&self.space)),
            lnr_control: 0,
            tph_control: 0,
            mmio: memory.flat_map(|bar| self.ranges(bar)).collect(),
            device_specific: Vec::new(),
        })
    }

    /// Something befalls the interface. Private pages are out of its reach when this returns.
    pub fn suffer(&mut self, incident: Incident) {
        let Ok(interface) = self.interface_mut() else {
            return;
        };
        let before = interface.tdi.state();
        let mut tdi = interface.tdi;
        tdi.suffer(incident);
        if tdi.state() == before {
            return;
        }
        let moved = interface.go_to(tdi, TrustedDma::Disabled);
        // Refused or not, what is locked no more is not shown as locked.
        interface.tdi = tdi;
        interface.failed_by = Some(incident);
        if before.is_locked()
            && let Some(skipped) = FAILED.permit()
        {
            let (function, state) = (self.bdf, tdi.state().name());
            tracing::warn!(%function, skipped, "interface goes to {state}: {incident:?}");
        }
        if let Err(error) = self.after_move(moved) {
            tracing::error!(function = %self.bdf, "interface failed: {error}");
        }
    }

    /// Notices that the device of a locked interface has been cut off, by a conversion for instance:
    /// whoever asks how an interface is doing calls this first.
    pub fn check_interface(&mut self) {
        let interface = self.interface.as_ref();
        let lost = interface.is_some_and(|interface| {
            interface.tdi.state().is_locked() && !interface.acceptance.is_sound()
        });
        if lost {
            self.suffer(Incident::SessionEnded);
        }
    }

    pub(super) fn withhold(&mut self, what: Withheld) {
        if let Some(interface) = &mut self.interface {
            interface.withheld = interface.withheld.saturating_add(1);
        }
        if let Some(skipped) = WITHHELD.permit() {
            let (function, what) = (self.bdf, what.name());
            tracing::warn!(%function, skipped, "interface is locked: a write to {what} is held back");
        }
    }

    fn interface_mut(&mut self) -> Result<&mut Interface, InterfaceError> {
        self.interface.as_mut().ok_or(InterfaceError::NoInterface)
    }

    /// What was held back comes into force once nothing is locked.
    fn after_move(&mut self, moved: Result<(), AcceptanceError>) -> Result<(), InterfaceError> {
        let locked = self
            .interface
            .as_ref()
            .is_some_and(|interface| interface.tdi.state().is_locked());
        if !locked && let Some(lockdown) = self.lockdown.take() {
            for (register, byte) in lockdown.due(self.physical.as_ref()) {
                self.write_physical(register, &[byte]);
            }
            self.apply();
        }
        Ok(moved?)
    }

    /// The pages of a BAR: those with MSI-X structures apart.
    fn ranges(&self, bar: &Bar) -> Vec<MmioRange> {
        let start = self.address_in_force(bar);
        let first = start / PAGE_SIZE;
        let pages = (start % PAGE_SIZE)
            .saturating_add(bar.size())
            .div_ceil(PAGE_SIZE);
        let attributes = |page: u64| {
            let offset = page.saturating_mul(PAGE_SIZE);
            let touches =
                |location: TableLocation| location.touches(bar.index(), offset, PAGE_SIZE);
            MmioAttributes {
                msix_table: self.layout.msix.is_some_and(|msix| touches(msix.table())),
                msix_pba: self.layout.msix.is_some_and(|msix| touches(msix.pending())),
                // No device here tells who accesses it.
                non_tee: true,
                updatable: false,
            }
        };
        let mut ranges: Vec<MmioRange> = Vec::new();
        let mut page = 0;
        while page < pages {
            let attributes_here = attributes(page);
            // Structures of MSI-X take few pages; the rest of a large BAR is one step.
            let next = self.next_change(bar, page).min(pages);
            let count = u32::try_from(next.saturating_sub(page)).unwrap_or(u32::MAX);
            let first_page = first.saturating_add(page).saturating_mul(PAGE_SIZE);
            match ranges.last_mut() {
                Some(last) if last.attributes == attributes_here => {
                    last.pages = last.pages.saturating_add(count);
                }
                _ => ranges.push(MmioRange {
                    first_page,
                    pages: count,
                    attributes: attributes_here,
                    bar: bar.index(),
                }),
            }
            page = next;
        }
        ranges
    }

    /// The first page after `page` at which an MSI-X structure begins or has ended.
    fn next_change(&self, bar: &Bar, page: u64) -> u64 {
        let locations = self.layout.msix.iter();
        let locations = locations.flat_map(|msix| [msix.table(), msix.pending()]);
        let edges = locations
            .filter(|location| location.bar == bar.index())
            .flat_map(|location| {
                let end = location.offset.saturating_add(location.bytes);
                [location.offset / PAGE_SIZE, end.div_ceil(PAGE_SIZE)]
            });
        edges.filter(|edge| *edge > page).min().unwrap_or(u64::MAX)
    }
}
