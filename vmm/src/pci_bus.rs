//! The guest's PCI bus while it is filled: with assigned devices, the virtual IOMMU, emulated devices.
//!
//! ```text
//!   PciBus::new ─► functions are inserted, in any order ─► PciBus::answer: ECAM and windows on the bus
//! ```

use std::sync::{Arc, Mutex};

use devices::bus::{Bus, BusOverlap};
use devices::passthrough::BarWindow;
use devices::pci::{AddressSpace, Bdf, HostBridge, Root, SharedFunction, SlotTaken};
use devices::ports::{PortBus, PortOverlap};
use devices::virtio::DmaAccess;
use kvm::{IrqRouter, Vm, VmKind};

use crate::plan::{Board, PciWindow, PciWindowKind, VmPlan};

/// What the functions of a VM are connected to, now and later. Clones are handles to the same.
#[derive(Clone)]
pub struct PciSite {
    router: IrqRouter,
    vm: Vm,
    windows: Vec<BarWindow>,
    board: Board,
    shared_bit: Option<u8>,
}

impl PciSite {
    /// Whether KVM has interrupt lines for functions: not in a TD.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        self.vm.kind() != VmKind::Td
    }

    /// Where message interrupts go.
    #[must_use]
    pub const fn router(&self) -> &IrqRouter {
        &self.router
    }

    /// The VM.
    #[must_use]
    pub const fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Where BARs answer.
    #[must_use]
    pub fn windows(&self) -> &[BarWindow] {
        &self.windows
    }

    /// The machine that the bus is in.
    #[must_use]
    pub const fn board(&self) -> &Board {
        &self.board
    }

    /// The bit that the guest sets in the address of a device, where the platform has one.
    #[must_use]
    pub const fn shared_bit(&self) -> Option<u8> {
        self.shared_bit
    }

    /// The same behind a bridge that passes memory on and nothing else.
    #[must_use]
    pub fn behind_a_bridge(&self) -> Self {
        let windows = self.windows.iter();
        let memory = windows.filter(|window| window.space == AddressSpace::Memory);
        Self {
            windows: memory.cloned().collect(),
            ..self.clone()
        }
    }
}

/// A PCI bus that no guest sees yet, and what its functions are connected to.
pub struct PciBus {
    root: Root,
    site: PciSite,
    access: DmaAccess,
}

impl PciBus {
    /// The bus of `plan`, with nothing but its host bridge. `vm` has its interrupt controller, and does
    /// not run yet.
    ///
    /// # Errors
    /// Never, for a bus that is empty.
    pub fn new(plan: &VmPlan, vm: &Vm) -> Result<Self, SlotTaken> {
        let mut root = Root::default();
        let bridge = Arc::new(Mutex::new(HostBridge::default()));
        root.insert(Bdf::from_requester_id(0), bridge)?;
        Ok(Self {
            root,
            site: PciSite {
                router: IrqRouter::new(vm.clone(), plan.device_bit()),
                vm: vm.clone(),
                windows: bar_windows(plan),
                board: *plan.board(),
                shared_bit: plan.device_bit(),
            },
            access: match plan.platform().is_confidential() {
                true => DmaAccess::Platform,
                false => DmaAccess::Any,
            },
        })
    }

    /// What its functions are connected to.
    #[must_use]
    pub const fn site(&self) -> &PciSite {
        &self.site
    }

    /// Puts a function where the guest will see it.
    ///
    /// # Errors
    /// When there is one already.
    pub fn insert(&mut self, guest: Bdf, function: SharedFunction) -> Result<(), SlotTaken> {
        self.root.insert(guest, function)
    }

    /// How the guest's drivers must give memory to emulated devices.
    #[must_use]
    pub const fn access(&self) -> DmaAccess {
        self.access
    }

    /// Lets the functions answer at I/O ports, on a machine that has ports of its own.
    ///
    /// # Errors
    /// When something else answers there.
    pub fn answer_at_ports(&self, ports: &mut PortBus) -> Result<(), PortOverlap> {
        match self.site.board.pci_ports() {
            Some(range) => ports.insert(
                range,
                self.root.window(AddressSpace::Io, range.first().into()),
            ),
            None => Ok(()),
        }
    }

    /// Lets the functions answer on `bus`, where `plan` has the ECAM and the windows.
    ///
    /// # Errors
    /// When something else answers there.
    pub fn answer(self, plan: &VmPlan, bus: &mut Bus) -> Result<(), BusOverlap> {
        if !plan.pci_windows().is_empty() {
            bus.insert(self.site.board.ecam(), self.root.ecam())?;
        }
        for window in plan.pci_windows() {
            let BarWindow { space, addresses } = bar_window(window);
            bus.insert(window.range, self.root.window(space, addresses.start))?;
        }
        Ok(())
    }
}

/// Where BARs answer.
fn bar_windows(plan: &VmPlan) -> Vec<BarWindow> {
    let ports = plan.board().pci_ports().map(|ports| BarWindow {
        space: AddressSpace::Io,
        addresses: ports.first().into()..u64::from(ports.last()) + 1,
    });
    let windows = plan.pci_windows().iter().map(bar_window);
    windows.chain(ports).collect()
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
