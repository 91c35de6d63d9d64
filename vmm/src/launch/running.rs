//! The last stage: vCPUs run, and this thread looks after the console and the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use devices::passthrough::tdi::{Incident, TdiState};
use devices::pci::Bdf;
use iommu::{Gpa, PageRange};
use kvm::Vm;

use crate::assign::Attached;
use crate::control::{ControlSocket, ControlThread, Controlled, ControlledDevices};
use crate::convert::Pages;
use crate::emulate::EmulatedDevices;
use crate::fault_watch::{FaultTally, FaultWatch, HostFault};
use crate::own_memory::own_memory;
use crate::plan::{PciWindowKind, VmPlan};
use crate::power_button::PowerButton;
use crate::run::{
    ConsoleInput, EndOfRun, Ending, EventLoop, Gate, Output, RawTerminal, Signals, is_ours,
};
use crate::stats::{self, Stats};
use crate::vcpu::{DeviceAddresses, VcpuThreads, World};

use super::arch::Chipset;
use super::created::Machine;
use super::{Finalized, LaunchError};

/// How long a terminal or a pipe has for the last output.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// A VM that runs.
pub struct Running {
    // The terminal is put back before anything else is taken down.
    terminal: Option<RawTerminal>,
    events: EventLoop,
    vcpus: VcpuThreads,
    control: Option<ControlThread>,
    output: Output,
    stats: Arc<Stats>,
    end: Arc<EndOfRun>,
    // After the vCPUs have stopped: what emulated devices have begun is completed, and the others go
    // back to the host.
    emulated: EmulatedDevices,
    assigned: Arc<Mutex<Attached>>,
    // Last: guest memory outlives everything that refers to it.
    chipset: Chipset,
    _vm: Vm,
    pages: Arc<Pages>,
}

impl Running {
    pub(super) fn new(
        finalized: Finalized,
        stats: Arc<Stats>,
        control: Option<ControlSocket>,
    ) -> Result<Self, LaunchError> {
        let Finalized {
            plan,
            page_exits,
            machine,
        } = finalized;
        let Machine {
            pages,
            vm,
            vcpus,
            pin_vcpus,
            chipset,
            bus,
            ports,
            console,
            button,
            assigned,
            emulated,
            end,
        } = machine;
        let mut events = EventLoop::new(Arc::clone(&end))?;
        let signals = Signals::watch(Arc::clone(&end));
        events.add(signals.map_err(LaunchError::host("watch for signals"))?);
        let input = ConsoleInput::new(console.input, console.drained, Arc::clone(&end));
        events.add(input);
        let faults = FaultTally::default();
        let has_devices = !plan.devices().is_empty() || !plan.ports().is_empty();
        if has_devices && let Some(watch) = watch_faults(&assigned, faults.clone()) {
            events.add(watch);
        }
        let gate = Arc::new(Gate::default());
        let world = Arc::new(World {
            bus,
            devices: device_addresses(&plan),
            page_exits,
            ports,
            port_window: port_window(&plan),
            stats: Arc::clone(&stats),
            gate: Arc::clone(&gate),
            end: Arc::clone(&end),
        });
        let mut running = Self {
            terminal: enter_terminal(),
            events,
            vcpus: VcpuThreads::new(gate, Arc::clone(&end)),
            control: None,
            output: console.output,
            stats,
            end,
            emulated,
            assigned: Arc::new(Mutex::new(assigned)),
            chipset,
            _vm: vm,
            pages,
        };
        let mut cpus = pin_vcpus.iter().flat_map(|pin| pin.numbers());
        for vcpu in vcpus {
            let processor = running.chipset.processor(vcpu, Arc::clone(&world));
            let started = running.vcpus.spawn(processor, cpus.next().copied());
            started.map_err(LaunchError::host("start a vCPU"))?;
        }
        if let Some(socket) = control {
            let vm = running.controlled(plan, button, faults);
            running.control = Some(ControlThread::start(socket, vm)?);
        }
        Ok(running)
    }

    fn controlled(&self, plan: VmPlan, button: PowerButton, faults: FaultTally) -> Controlled {
        Controlled {
            plan,
            stats: Arc::clone(&self.stats),
            pages: Arc::clone(&self.pages),
            pause: self.vcpus.pause(),
            button,
            devices: ControlledDevices::new(&self.assigned),
            emulated: self.emulated.counted().to_vec(),
            faults,
            end: Arc::clone(&self.end),
        }
    }

    /// Looks after the VM until it ends, then takes it down.
    #[must_use]
    pub fn wait(mut self) -> (Ending, stats::Report) {
        self.events.until_end();
        self.output.hurry();
        self.vcpus.stop();
        drop(self.control.take());
        let ending = match self.end.ending() {
            Some(ending) => ending.clone(),
            None => Ending::Failed("the event loop ended before the VM".to_owned()),
        };
        let own_memory = own_memory(self.pages.ram());
        let mut report = self.stats.report(ending.name(), own_memory);
        report.conversions = Some(self.pages.statistics().into());
        if !self.output.finish(LAST_OUTPUT) {
            tracing::warn!("the last console output was not taken");
        }
        drop(self.terminal.take());
        (ending, report)
    }
}

/// Hears of what the host's IOMMU refuses to the devices: the guest's IOMMU reports
/// it, as the refusal of a mapping that the guest has not made or not made good. An access of an accepted
/// device that comes to nothing is an error of its interface: its guest must not go on trusting it.
fn watch_faults(assigned: &Attached, tally: FaultTally) -> Option<FaultWatch> {
    let interfaces = Arc::clone(assigned.interfaces());
    let known = Arc::clone(&interfaces);
    let guest_of = move |host| known.guest_of(host);
    let iommu = assigned.iommu().cloned();
    let on_fault = move |guest: Bdf, fault: HostFault| {
        if let Some(iommu) = &iommu {
            iommu.report(fault.seen_by_guest(guest));
        }
        let status = interfaces.status(guest);
        if let Ok(Some(status)) = status
            && status.state == TdiState::Run
            && let Err(error) = interfaces.suffer(guest, Incident::FailedRead)
        {
            tracing::error!("{error}");
        }
    };
    FaultWatch::open(Box::new(guest_of), tally, Box::new(on_fault))
}

/// How the guest's accesses to devices arrive here.
fn device_addresses(plan: &VmPlan) -> DeviceAddresses {
    match (plan.shared_bit(), plan.device_bit()) {
        (None, _) => DeviceAddresses::Plain,
        (Some(bit), None) => DeviceAddresses::Either(bit),
        (Some(_), Some(bit)) => DeviceAddresses::Shared(bit),
    }
}

/// Where I/O ports of PCI functions answer in memory.
fn port_window(plan: &VmPlan) -> Option<PageRange<Gpa>> {
    let windows = plan.pci_windows().iter();
    let mut ports = windows.filter(|window| window.kind == PciWindowKind::Io);
    ports.next().map(|window| window.range)
}

/// The operator's keys go to the guest, if stdin is a terminal and this is what it shows.
fn enter_terminal() -> Option<RawTerminal> {
    let stdin = std::io::stdin();
    if !is_ours(&stdin) {
        return None;
    }
    let entered = RawTerminal::enter(stdin);
    entered
        .inspect_err(|error| tracing::warn!(%error, "the terminal stays line by line"))
        .ok()
}
