//! Putting the devices on the guest's PCI bus.

use std::sync::{Arc, Mutex, PoisonError};

use devices::bus::{Bus, BusOverlap};
use devices::passthrough::{BarWindow, BuildError, PassthroughFunction, Wiring};
use devices::pci::{AddressSpace, Bdf, HostBridge, Root, SlotTaken};
use kvm::{IrqRouter, Vm};

use super::chain;
use super::device::{Device, Physical};
use super::interrupts::{Messages, Pin};
use super::open::Assigned;
use super::slots::BarSlots;
use crate::boot::aarch64::fdt::lines;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{PciWindow, PciWindowKind, PlannedDevice, VmPlan};

/// Why a device is not on the guest's bus.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Something else answers there.
    #[error(transparent)]
    Bus(#[from] BusOverlap),
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
pub struct Attached {
    functions: Vec<Arc<Mutex<PassthroughFunction>>>,
    // Its table is emptied and its devices are closed after the functions have let go of them.
    _assigned: Assigned,
}

impl Assigned {
    /// Puts the PCI root of `plan` on `bus`, with the devices on it. The VM has its interrupt
    /// controller, and does not run yet.
    ///
    /// # Errors
    /// When KVM refuses, or a device is not an endpoint with well-formed registers.
    pub fn attach(self, plan: &VmPlan, vm: &Vm, bus: &mut Bus) -> Result<Attached, AttachError> {
        let mut root = Root::default();
        let bridge = Arc::new(Mutex::new(HostBridge::default()));
        root.insert(Bdf::from_requester_id(0), bridge)?;
        let wires = Wires {
            router: IrqRouter::new(vm.clone(), plan.shared_bit()),
            windows: plan.pci_windows().iter().map(bar_window).collect(),
            vm: vm.clone(),
            shared_bit: plan.shared_bit(),
        };
        let mut functions = Vec::new();
        for (planned, device) in &self.devices {
            let function = Arc::new(Mutex::new(wires.function(planned, device)?));
            functions.push(Arc::clone(&function));
            root.insert(planned.guest, function)?;
        }
        if let Some(mmio) = plan.mmio().filter(|_| !plan.pci_windows().is_empty()) {
            bus.insert(mmio.ecam, root.ecam())?;
        }
        for window in plan.pci_windows() {
            let BarWindow { space, addresses } = bar_window(window);
            bus.insert(window.range, root.window(space, addresses.start))?;
        }
        Ok(Attached {
            functions,
            _assigned: self,
        })
    }
}

/// What functions are connected to.
struct Wires {
    router: IrqRouter,
    windows: Vec<BarWindow>,
    vm: Vm,
    shared_bit: Option<u8>,
}

impl Wires {
    fn function(
        &self,
        planned: &PlannedDevice,
        device: &Arc<Device>,
    ) -> Result<PassthroughFunction, AttachError> {
        let physical = Physical(Arc::clone(device));
        let pin = self.pin(planned, device)?;
        let wiring = Wiring {
            bdf: planned.guest,
            windows: self.windows.clone(),
            mapper: Box::new(BarSlots::new(
                self.vm.clone(),
                Arc::clone(device),
                self.shared_bit,
            )),
            controller: Arc::new(Messages(self.router.clone())),
            pin: pin.map(|pin| Box::new(pin) as Box<_>),
        };
        PassthroughFunction::new(Box::new(physical), wiring).map_err(|source| AttachError::Build {
            device: device.name().to_owned(),
            source,
        })
    }

    /// The wire of the device's pin, if it has one: the line that the device tree gives to it.
    fn pin(&self, planned: &PlannedDevice, device: &Device) -> Result<Option<Pin>, AttachError> {
        let Some(pin) = device.interrupt_pin().map(|pin| pin.get() - 1) else {
            return Ok(None);
        };
        let spi = lines::intx(planned.guest.device(), pin);
        let line = self.router.line(spi).map_err(|source| AttachError::Line {
            device: device.name().to_owned(),
            source,
        })?;
        Ok(Some(Pin(line)))
    }
}

/// Where BARs answer in a window: memory at guest-physical addresses, ports from 0 on.
fn bar_window(window: &PciWindow) -> BarWindow {
    let range = window.range;
    match window.kind {
        PciWindowKind::Io => BarWindow {
            space: AddressSpace::Io,
            addresses: 0..range.bytes(),
        },
        PciWindowKind::Mem32 | PciWindowKind::Mem64 => BarWindow {
            space: AddressSpace::Memory,
            addresses: range.start().raw()..range.end().raw(),
        },
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for function in &self.functions {
            let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
            function.shut_down();
        }
    }
}
