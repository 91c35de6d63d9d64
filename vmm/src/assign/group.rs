//! Devices that share a DMA table.
//!
//! ```text
//!   IOMMU group of the host ─── container ─── table      confidential VM, or one with a virtual IOMMU:
//!   IOMMU group of the host ─── container ─── table      each group comes to reach something else
//!
//!   all IOMMU groups ────────── container ─── table      else: all devices reach all of DRAM, pinned once
//! ```

use std::sync::Arc;

use devices::pci::Bdf;
use iommu::{Iova, PageRange, Reserved, TableId};
use vfio::{BackendKind, Container, Motion};

use super::device::Device;
use super::dma::Filled;
use super::interface::Switch;
use super::replacement::Replacement;
use crate::plan::{PlannedDevice, VmPlan};
use crate::platform::Platform;

/// How DMA tables are dealt out to the host's IOMMU groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// One table serves all devices.
    OneForAll,
    /// A device that is accepted, or attached to a domain, takes only its own group with it.
    OnePerGroup,
}

impl Sharing {
    pub(super) fn of(plan: &VmPlan) -> Self {
        match plan.platform() {
            Platform::None if plan.iommu().is_none() => Self::OneForAll,
            Platform::None
            | Platform::EmulatedRealm
            | Platform::Cca
            | Platform::Pkvm
            | Platform::SwProtected
            | Platform::Snp
            | Platform::Tdx => Self::OnePerGroup,
        }
    }
}

/// An assigned device in its group.
pub struct Member {
    pub(super) planned: PlannedDevice,
    pub(super) device: Arc<Device>,
}

impl Member {
    /// The device as planned: its addresses on the host's bus and on the guest's.
    #[must_use]
    pub fn planned(&self) -> &PlannedDevice {
        &self.planned
    }
}

/// Devices that are held, in a container of their own, and reach nothing yet.
pub(super) struct OpenGroup {
    pub(super) members: Vec<Member>,
    pub(super) host_groups: Vec<String>,
    // Closed after its devices.
    pub(super) container: Container,
}

impl OpenGroup {
    pub(super) fn new(container: Container) -> Self {
        Self {
            members: Vec::new(),
            host_groups: Vec::new(),
            container,
        }
    }

    /// Adds a device of a group of the host.
    pub(super) fn add(&mut self, host_group: String, member: Member) {
        if !self.host_groups.contains(&host_group) {
            self.host_groups.push(host_group);
        }
        self.members.push(member);
    }
}

/// Devices and the table that says what they reach.
pub struct Group {
    // Emptied before the devices are closed.
    pub(super) table: Filled,
    /// Windows that the table never maps.
    pub(super) reserved: Reserved,
    /// The addresses that the table must always be able to map.
    pub(super) promised: Vec<PageRange<Iova>>,
    pub(super) opened: OpenGroup,
}

impl Group {
    /// The table, in the address space of the VM's pages.
    #[must_use]
    pub fn table(&self) -> TableId {
        self.table.id()
    }

    /// The host's IOMMU groups behind the table, by the names of their nodes in `/dev/vfio`.
    #[must_use]
    pub fn host_groups(&self) -> &[String] {
        &self.opened.host_groups
    }

    /// How the host's kernel is told what they reach.
    #[must_use]
    pub fn backend(&self) -> BackendKind {
        self.opened.container.kind()
    }

    /// The devices, in the order of the config.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.opened.members
    }

    /// Whether the guest sees a device of this group there.
    #[must_use]
    pub fn has(&self, guest: Bdf) -> bool {
        self.members()
            .iter()
            .any(|member| member.planned.guest == guest)
    }

    /// What puts a device of the group under T1 when it is accepted.
    pub(super) fn switch(&self, member: &Member) -> Switch {
        let (pages, table) = (self.table.pages(), self.table());
        let device = &member.device;
        match &self.opened.container {
            Container::Iommufd(home) if device.motion(home) == Motion::OneStep => {
                let tables = (home, table);
                let promised = &self.promised;
                Switch::Replace(Replacement::new(pages, device, tables, promised))
            }
            Container::Type1(_) | Container::Iommufd(_) => Switch::InPlace {
                pages: Arc::clone(pages),
                table,
            },
        }
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.members().iter().map(|member| &member.device)
    }
}
