//! Putting the devices on the guest's PCI bus.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::passthrough::{BuildError, PassthroughFunction, Wiring};
use devices::pci::{Bdf, SlotTaken};

use super::device::{Device, Physical, Registers};
use super::dma::Connected;
use super::group::{Group, Member};
use super::hotplug::Slots;
use super::interface::{Entry, Interfaces, Switch};
use super::slots::BarSlots;
use super::virtual_iommu::VirtualIommu;
use crate::boot::{aarch64, x86_64};
use crate::causes::chain;
use crate::convert::Pages;
use crate::diagnostic::{Code, Diagnostic};
use crate::interrupts::{Messages, Pin};
use crate::pci_bus::{PciBus, PciSite};
use crate::plan::{Board, VmPlan};
use crate::platform::Platform;

/// Why a device is not on the guest's bus.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Two devices have one address on the guest's bus.
    #[error(transparent)]
    Slot(#[from] SlotTaken),
    /// The device cannot be shown to a guest.
    #[error("{device} cannot be shown to a guest")]
    Build {
        /// The device.
        device: String,
        /// Why not.
        #[source]
        source: BuildError,
    },
    /// The guest's IOMMU cannot be made.
    #[error("the virtual IOMMU cannot be shown to the guest")]
    Iommu(#[from] devices::virtio::BuildError),
    /// A root port cannot be made.
    #[error("a port for hot-plugging cannot be made")]
    Port(#[source] io::Error),
    /// KVM has no interrupt line for the device.
    #[error("{device} has no interrupt line")]
    Line {
        /// The device.
        device: String,
        /// Why not.
        #[source]
        source: kvm::Error,
    },
}

impl From<AttachError> for Diagnostic {
    fn from(error: AttachError) -> Self {
        Self::error(Code::DeviceNotAttached, chain(&error))
    }
}

/// The devices on the guest's bus. When this goes they are reset and out of the guest, whoever else
/// still has the bus.
#[derive(Default)]
pub struct Attached {
    pub(super) functions: BTreeMap<Bdf, Arc<Mutex<PassthroughFunction>>>,
    pub(super) interfaces: Arc<Interfaces>,
    iommu: Option<VirtualIommu>,
    /// Where devices come and go while the VM runs.
    pub(super) slots: Option<Slots>,
    // Tables are emptied and devices are closed after the functions have let go of them.
    pub(super) groups: Vec<Group>,
}

impl Attached {
    /// The groups: every device is in one of them.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of the device that the guest sees there.
    #[must_use]
    pub fn group_of(&self, guest: Bdf) -> Option<&Group> {
        self.groups.iter().find(|group| group.has(guest))
    }

    /// What the guest sees there of an assigned device.
    #[must_use]
    pub fn function(&self, guest: Bdf) -> Option<&Arc<Mutex<PassthroughFunction>>> {
        self.functions.get(&guest)
    }

    /// The guest's IOMMU, if it has one.
    #[must_use]
    pub fn iommu(&self) -> Option<&VirtualIommu> {
        self.iommu.as_ref()
    }

    /// The interfaces of the devices.
    #[must_use]
    pub fn interfaces(&self) -> &Arc<Interfaces> {
        &self.interfaces
    }
}

impl Connected {
    /// Puts the devices of `plan` on the guest's PCI bus.
    ///
    /// # Errors
    /// When KVM refuses, or a device is not an endpoint with well-formed registers.
    pub fn attach(
        self,
        plan: &VmPlan,
        pages: &Arc<Pages>,
        pci: &mut PciBus,
    ) -> Result<Attached, AttachError> {
        let mut functions = BTreeMap::new();
        let interfaces = Interfaces::default();
        for group in &self.groups {
            for member in group.members() {
                let guest = member.planned.guest;
                let function = assigned(pci.site(), plan.platform(), (group, member), guest)?;
                let function = Arc::new(Mutex::new(function));
                functions.insert(guest, Arc::clone(&function));
                interfaces.insert(guest, entry(group, member, &function));
                pci.insert(guest, function)?;
            }
        }
        let iommu = self.iommu.map(|ready| {
            let guest = ready.guest;
            let iommu = VirtualIommu::new(ready, pci.site().router(), pci.access())?;
            pci.insert(guest, iommu.function())?;
            Ok::<_, AttachError>(iommu)
        });
        let iommu = iommu.transpose()?;
        let slots = match plan.ports().is_empty() {
            true => None,
            false => Some(Slots::new(plan, pages, pci, self.fences)?),
        };
        Ok(Attached {
            functions,
            interfaces: Arc::new(interfaces),
            iommu,
            slots,
            groups: self.groups,
        })
    }
}

/// The interface of `member` of `group`.
pub(super) fn entry(
    group: &Group,
    member: &Member,
    function: &Arc<Mutex<PassthroughFunction>>,
) -> Entry {
    let host = member.planned.pci;
    let members = group.members().iter().map(|member| member.planned.pci);
    let others = members.filter(|other| *other != host).collect();
    Entry::new(host, others, Arc::clone(function))
}

/// A device as the guest sees it; its pin is wired as that of the function `wired` on the root's bus.
pub(super) fn assigned(
    pci: &PciSite,
    platform: Platform,
    (group, member): (&Group, &Member),
    wired: Bdf,
) -> Result<PassthroughFunction, AttachError> {
    let switch = platform.is_confidential().then(|| match platform {
        Platform::Cca => Switch::OfTheRmm,
        _ => group.switch(member),
    });
    let device = Arc::clone(&member.device);
    let physical = Physical {
        device: Arc::clone(&device),
        registers: Registers::of(platform),
    };
    let pin = pin(pci, wired, &device)?;
    let wiring = Wiring {
        bdf: member.planned.guest,
        windows: pci.windows().to_vec(),
        mapper: Box::new(BarSlots::new(
            pci.vm().clone(),
            Arc::clone(&device),
            pci.shared_bit(),
        )),
        controller: Arc::new(Messages(pci.router().clone())),
        pin: pin.map(|pin| Box::new(pin) as Box<_>),
        acceptance: switch.map(|switch| Box::new(switch) as Box<_>),
    };
    PassthroughFunction::new(Box::new(physical), wiring).map_err(|source| AttachError::Build {
        device: device.name().to_owned(),
        source,
    })
}

/// The wire of the device's pin, if it has one: the line that the guest is told of.
fn pin(pci: &PciSite, wired: Bdf, device: &Device) -> Result<Option<Pin>, AttachError> {
    let Some(pin) = device.interrupt_pin().map(|pin| pin.get() - 1) else {
        return Ok(None);
    };
    if !pci.has_lines() {
        tracing::info!(
            "{}: its guest has no interrupt lines, messages only",
            device.name()
        );
        return Ok(None);
    }
    let number = wired.device();
    let input = match pci.board() {
        Board::Arm(_) => aarch64::fdt::lines::intx(number, pin),
        Board::Pc(_) => x86_64::lines::intx(number, pin),
    };
    let line = pci.router().line(input);
    let line = line.map_err(|source| AttachError::Line {
        device: device.name().to_owned(),
        source,
    })?;
    Ok(Some(Pin(line)))
}

impl Drop for Attached {
    fn drop(&mut self) {
        for function in self.functions.values() {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            function.shut_down();
        }
    }
}
