//! The guest's IOMMU on the guest's pages.

use std::sync::Arc;

use devices::virtio::iommu::IommuBackend;
use iommu::request::{EndpointId, Request};
use iommu::viommu::Viommu;
use iommu::wire::{Config, Status};
use iommu::{AddressSpace, TableId};

use super::{Held, HostTable, Pages};

/// What does as the guest asks of its IOMMU: each request is one turn at the lock of the pages, so that
/// no conversion comes in between.
pub struct Translation {
    pages: Arc<Pages>,
    /// Sizes of pages that the host's IOMMUs map.
    page_sizes: u64,
}

impl Translation {
    /// Makes `viommu` the guest's IOMMU. Its endpoints are behind tables of `pages`; 4 KiB is among
    /// `page_sizes`, the sizes of pages that their IOMMUs on the host map.
    #[must_use]
    pub fn new(pages: Arc<Pages>, viommu: Viommu, page_sizes: u64) -> Self {
        pages.held().viommu = viommu;
        Self { pages, page_sizes }
    }

    /// Edits, and cuts off the devices behind tables that are lost by it.
    fn edit<R>(
        &self,
        edit: impl FnOnce(&mut Viommu, &mut AddressSpace<HostTable>) -> (R, Vec<TableId>),
    ) -> R {
        let mut held = self.pages.held();
        let Held { space, viommu } = &mut *held;
        let (result, lost) = edit(viommu, space);
        if !lost.is_empty() {
            self.pages.cut_off(&lost);
        }
        result
    }
}

impl IommuBackend for Translation {
    fn config(&self) -> Config {
        self.pages.held().viommu.config(self.page_sizes)
    }

    fn probe(&self, endpoint: EndpointId) -> Option<Vec<u8>> {
        self.pages.held().viommu.probe(endpoint)
    }

    fn apply(&mut self, request: Request) -> Status {
        self.edit(|viommu, space| {
            let answer = viommu.apply(space, request);
            (answer.status, answer.quarantined)
        })
    }

    fn set_bypass(&mut self, bypass: bool) {
        self.edit(|viommu, space| ((), viommu.set_bypass(space, bypass)));
    }

    fn reset(&mut self) {
        self.edit(|viommu, space| ((), viommu.reset(space)));
    }
}
