//! The guest's IOMMU in front of the assigned devices.
//!
//! ```text
//!   guest driver ─► VirtioPci ─► VirtioIommu ─► Translation ─► pages: domains, tables of the groups
//!                       ▲                        (one lock)
//!   a fault ────────────┘ event queue
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::pci::{Bdf, SharedFunction};
use devices::virtio::iommu::{EVENTS, FaultQueue, VirtioIommu};
use devices::virtio::{BuildError, DmaAccess, VirtioPci, VirtioWiring};
use iommu::domain::Binding;
use iommu::request::EndpointId;
use iommu::viommu::Viommu;
use iommu::{FaultEvent, Gpa, PAGE_SIZE, PageRange};
use kvm::IrqRouter;

use super::group::Group;
use crate::causes::chain;
use crate::convert::{Pages, SharedMemory, Translation};
use crate::diagnostic::{Code, Diagnostic};
use crate::interrupts::Messages;
use crate::plan::{PlannedIommu, Unattached, VmPlan};

type Function = VirtioPci<VirtioIommu<Translation>, SharedMemory>;

/// What the devices of a VM are behind, as far as that is one thing for all of them.
#[derive(Clone, Copy)]
pub(super) struct Front {
    planned: Option<PlannedIommu>,
    /// Where the guest's functions write message interrupts.
    doorbell: Option<PageRange<Gpa>>,
}

impl Front {
    pub(super) fn of(plan: &VmPlan) -> Self {
        Self {
            planned: plan.iommu().copied(),
            doorbell: plan.board().doorbell(),
        }
    }

    /// What a table translates by before the guest has said anything.
    pub(super) fn binding(&self) -> Binding {
        match self.planned.map(|planned| planned.unattached) {
            None | Some(Unattached::Bypass) => Binding::Identity,
            Some(Unattached::Blocked) => Binding::Blocked,
        }
    }

    /// Whether the guest may come to choose addresses.
    pub(super) fn translates(&self) -> bool {
        self.planned.is_some()
    }

    /// Gives the guest its IOMMU, with an endpoint for each device of `groups`.
    ///
    /// # Errors
    /// When the host cannot map single pages, or has too many windows to tell of.
    pub(super) fn translate(
        &self,
        pages: &Arc<Pages>,
        groups: &[Group],
    ) -> Result<Option<Ready>, Diagnostic> {
        let Some(planned) = self.planned else {
            return Ok(None);
        };
        let unknown = PAGE_SIZE;
        let sizes = groups
            .iter()
            .map(|group| group.opened.container.page_sizes());
        let sizes = sizes.fold(u64::MAX, |all, sizes| all & sizes.unwrap_or(unknown));
        if sizes & PAGE_SIZE == 0 {
            let message = "the host's IOMMU maps no single pages of 4 KiB, as a guest's IOMMU must";
            return Err(Diagnostic::error(Code::DmaTableNotFilled, message));
        }
        let bypass = planned.unattached == Unattached::Bypass;
        let mut viommu = Viommu::new(planned.input, bypass);
        if let Some(doorbell) = self.doorbell {
            viommu = viommu.with_doorbell(doorbell);
        }
        for group in groups {
            for member in group.members() {
                let endpoint = EndpointId(member.planned.guest.requester_id().into());
                let added = viommu.add(endpoint, group.table(), group.reserved.clone());
                added.map_err(|error| Diagnostic::error(Code::DmaTableNotFilled, chain(&error)))?;
            }
        }
        Ok(Some(Ready {
            guest: planned.guest,
            translation: Translation::new(Arc::clone(pages), viommu, sizes),
            memory: SharedMemory::new(Arc::clone(pages)),
        }))
    }
}

/// An IOMMU that translates, and is on no bus yet.
pub(super) struct Ready {
    pub(super) guest: Bdf,
    translation: Translation,
    memory: SharedMemory,
}

/// The guest's IOMMU on its bus. Clones are handles to the same one.
#[derive(Clone)]
pub struct VirtualIommu {
    faults: FaultQueue,
    function: Arc<Mutex<Function>>,
}

impl VirtualIommu {
    pub(super) fn new(
        ready: Ready,
        router: &IrqRouter,
        access: DmaAccess,
    ) -> Result<Self, BuildError> {
        let faults = FaultQueue::default();
        let device = VirtioIommu::new(ready.translation, faults.clone());
        let wiring = VirtioWiring {
            bdf: ready.guest,
            controller: Arc::new(Messages(router.clone())),
            memory: ready.memory,
            access,
            doorbells: Vec::new(),
        };
        let function = VirtioPci::new(device, wiring)?;
        Ok(Self {
            faults,
            function: Arc::new(Mutex::new(function)),
        })
    }

    pub(super) fn function(&self) -> SharedFunction {
        Arc::<Mutex<Function>>::clone(&self.function)
    }

    /// Has the guest told that a device was refused an access. Not to be called with the pages locked.
    pub fn report(&self, fault: FaultEvent) {
        self.faults.report(fault);
        self.lock().service(EVENTS);
    }

    fn lock(&self) -> MutexGuard<'_, Function> {
        self.function.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
