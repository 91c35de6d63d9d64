//! The last stage: vCPUs run, and this thread looks after the console and the end.

use std::sync::Arc;
use std::time::Duration;

use iommu::{Gpa, PageRange};
use kvm::Vm;
use kvm::aarch64::Gic;

use crate::assign::Attached;
use crate::convert::Pages;
use crate::plan::{PciWindowKind, VmPlan};
use crate::platform::emulated_realm::RealmVm;
use crate::run::{
    ConsoleInput, EndOfRun, Ending, EventLoop, Output, RawTerminal, Signals, is_ours,
};
use crate::stats::{self, Stats};
use crate::vcpu::{Processor, VcpuThreads, World};

use super::created::Machine;
use super::own_memory::own_memory;
use super::{Finalized, LaunchError};

/// How long a terminal or a pipe has for the last output.
const LAST_OUTPUT: Duration = Duration::from_secs(5);

/// A VM that runs.
pub struct Running {
    // The terminal is put back before anything else is taken down.
    terminal: Option<RawTerminal>,
    events: EventLoop,
    vcpus: VcpuThreads,
    output: Output,
    stats: Arc<Stats>,
    end: Arc<EndOfRun>,
    // After the vCPUs have stopped: the devices go back to the host.
    _assigned: Attached,
    // Last: guest memory outlives everything that refers to it.
    _gic: Gic,
    _vm: Vm,
    pages: Arc<Pages>,
}

impl Running {
    pub(super) fn new(finalized: Finalized, stats: Arc<Stats>) -> Result<Self, LaunchError> {
        let Finalized { plan, machine } = finalized;
        let Machine {
            pages,
            vm,
            vcpus,
            gic,
            bus,
            console,
            assigned,
            realm,
            end,
        } = machine;
        let mut events = EventLoop::new(Arc::clone(&end))?;
        let signals = Signals::watch(Arc::clone(&end));
        events.add(signals.map_err(LaunchError::host("watch for signals"))?);
        let input = ConsoleInput::new(console.serial, console.drained, Arc::clone(&end));
        events.add(input);
        let world = Arc::new(World {
            bus,
            shared_bit: plan.shared_bit(),
            ports: ports(&plan),
            stats: Arc::clone(&stats),
            end: Arc::clone(&end),
        });
        let mut running = Self {
            terminal: enter_terminal(),
            events,
            vcpus: VcpuThreads::new(Arc::clone(&end)),
            output: console.output,
            stats,
            end,
            _assigned: assigned,
            _gic: gic,
            _vm: vm,
            pages,
        };
        for vcpu in vcpus {
            let processor = Processor {
                vcpu,
                calls: realm.as_ref().map(RealmVm::calls),
                world: Arc::clone(&world),
            };
            let started = running.vcpus.spawn(processor);
            started.map_err(LaunchError::host("start a vCPU"))?;
        }
        Ok(running)
    }

    /// Looks after the VM until it ends, then takes it down.
    #[must_use]
    pub fn wait(mut self) -> (Ending, stats::Report) {
        self.events.until_end();
        self.output.hurry();
        self.vcpus.stop();
        let ending = match self.end.ending() {
            Some(ending) => ending.clone(),
            None => Ending::Failed("the event loop ended before the VM".to_owned()),
        };
        let guest = self.pages.ram().slots();
        let guest = guest
            .iter()
            .map(|slot| slot.host..slot.host.saturating_add(slot.bytes));
        let mut report = self
            .stats
            .report(ending.name(), own_memory(&guest.collect::<Vec<_>>()));
        report.conversions = Some(self.pages.statistics().into());
        if !self.output.finish(LAST_OUTPUT) {
            tracing::warn!("the last console output was not taken");
        }
        drop(self.terminal.take());
        (ending, report)
    }
}

/// Where I/O ports of PCI functions answer.
fn ports(plan: &VmPlan) -> Option<PageRange<Gpa>> {
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
