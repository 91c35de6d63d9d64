//! Accepting a device by moving it, where that is one step: its T1 is an address space of its own.
//!
//! ```text
//!   put_under(T1):  new address space ─► filled, and kept right ─► device moved ─► in force
//!   put_under(T0):  device moved back ─► T1 emptied ─► gone
//! ```
//! The kernel moves a device in one step, so that its DMA meets one of the two tables, and both hold
//! the shared pages. T0 is kept right all the while: there is always a way back.

use std::sync::Arc;

use devices::passthrough::AcceptanceError;
use iommu::{Health, Iova, PageRange, Table, TableId};
use vfio::{Container, Ioas, PinnedTable};

use super::device::Device;
use super::dma::promise;
use crate::causes::chain;
use crate::convert::Pages;

/// A device of iommufd with its two tables.
pub(super) struct Replacement {
    pages: Arc<Pages>,
    device: Arc<Device>,
    /// T0 and where it is in the address space of the VM's pages.
    home: Ioas,
    table: TableId,
    /// What both tables must always be able to map.
    promised: Vec<PageRange<Iova>>,
    /// T1, while the device is accepted.
    accepted: Option<Twin>,
}

struct Twin {
    table: TableId,
    // Goes after the device has left it.
    _ioas: Ioas,
}

impl Replacement {
    /// A device that is in `home`, with `table` as its T0.
    pub(super) fn new(
        pages: &Arc<Pages>,
        device: &Arc<Device>,
        (home, table): (&Ioas, TableId),
        promised: &[PageRange<Iova>],
    ) -> Self {
        Self {
            pages: Arc::clone(pages),
            device: Arc::clone(device),
            home: home.clone(),
            table,
            promised: promised.to_vec(),
            accepted: None,
        }
    }

    pub(super) fn put_under(&mut self, to: Table) -> Result<(), AcceptanceError> {
        match to {
            Table::T1 if self.accepted.is_none() => self.accept(),
            Table::T0 if self.accepted.is_some() => self.stop(),
            Table::T0 | Table::T1 => Ok(()),
        }
    }

    /// Whether both tables are as they should be.
    pub(super) fn is_sound(&self) -> bool {
        let twin = self.accepted.as_ref().map(|twin| twin.table);
        let mut tables = std::iter::once(self.table).chain(twin);
        let space = self.pages.space();
        tables.all(|table| space.health(table) == Some(Health::Sound))
    }

    fn accept(&mut self) -> Result<(), AcceptanceError> {
        let ioas = self.home.sibling().map_err(refused)?;
        let container = Container::Iommufd(ioas.clone());
        promise(&container, &self.promised).map_err(refused)?;
        let memory = self.pages.ram().dma_view().map_err(refused)?;
        let host = PinnedTable::new(container, Arc::new(memory));
        let table = self.pages.space().attach_twin(self.table, Box::new(host));
        let table = table.map_err(refused)?;
        // The guest's memory is pinned for T1 here, before the device moves.
        if let Err(error) = self.device.attach(&ioas) {
            drop(self.pages.detach(table));
            return Err(refused(error));
        }
        self.accepted = Some(Twin { table, _ioas: ioas });
        Ok(())
    }

    fn stop(&mut self) -> Result<(), AcceptanceError> {
        if let Err(error) = self.device.attach(&self.home) {
            self.pages.cut_off(&[self.table]);
            return Err(AcceptanceError::CutOff(Box::new(error)));
        }
        self.forget_twin();
        Ok(())
    }

    fn forget_twin(&mut self) {
        if let Some(twin) = self.accepted.take() {
            drop(self.pages.detach(twin.table));
        }
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> AcceptanceError {
    AcceptanceError::Refused(Box::new(error))
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Only an address space that no device is in can be given back.
        if self.accepted.is_some()
            && let Err(error) = self.device.attach(&self.home)
        {
            tracing::warn!("{}", chain(&error));
        }
        self.forget_twin();
    }
}
