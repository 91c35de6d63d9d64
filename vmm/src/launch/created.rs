//! The second stage: a VM with memory, vCPUs, interrupt controller and devices, and nothing in it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use devices::bus::{Bus, SharedDevice};
use devices::panic::PanicNotifier;
use devices::ports::PortBus;
use devices::serial::Serial;
use kvm::{Vcpu, Vm};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::assign::{Assigned, AttachError, Attached};
use crate::boot::BootFiles;
use crate::boot::firmware::Firmware;
use crate::config::NumberList;
use crate::convert::Pages;
use crate::emulate::{EmulatedDevices, Terminal};
use crate::pci_bus::PciBus;
use crate::plan::VmPlan;
use crate::power_button::PowerButton;
use crate::run::{EndOfRun, Ending, InputPort, Output, Screen};

use super::arch::{Chipset, Fixtures, Guest, KernelImage, Placement};
use super::planned::SYSFS;
use super::{LaunchError, Loaded, Planned, Surroundings, memory};

/// A VM that is there, without a program.
pub struct Created {
    pub(super) plan: VmPlan,
    pub(super) files: BootFiles<KernelImage>,
    pub(super) placement: Placement,
    /// What it is to those that protect it.
    pub(super) guest: Guest,
    pub(super) machine: Machine,
}

/// The parts of a VM that live as long as it runs.
pub(super) struct Machine {
    /// Guest memory.
    pub(super) pages: Arc<Pages>,
    /// The VM.
    pub(super) vm: Vm,
    /// Its processors, by index.
    pub(super) vcpus: Vec<Vcpu>,
    /// The CPU of the host that each of them runs on; any, if absent.
    pub(super) pin_vcpus: Option<NumberList>,
    /// Its interrupt controller, and what else its architecture has.
    pub(super) chipset: Chipset,
    /// Its devices in memory.
    pub(super) bus: Bus,
    /// Its devices at I/O ports.
    pub(super) ports: PortBus,
    /// Its console.
    pub(super) console: Console,
    /// By which its guest is asked to turn itself off.
    pub(super) button: PowerButton,
    /// The devices of the host that it has.
    pub(super) assigned: Attached,
    /// Its emulated devices on the PCI bus.
    pub(super) emulated: EmulatedDevices,
    /// Where its end is noted.
    pub(super) end: Arc<EndOfRun>,
}

/// The console of a VM.
pub(super) struct Console {
    /// What takes input.
    pub(super) input: Box<dyn InputPort>,
    /// Where its output goes.
    pub(super) output: Output,
    /// Signalled when the guest has taken all of its input.
    pub(super) drained: EventFd,
}

impl Console {
    /// What another console of the guest is connected to.
    fn terminal(&self) -> Result<Terminal, LaunchError> {
        let drained = self.drained.try_clone();
        Ok(Terminal {
            output: self.output.writer(),
            drained: drained.map_err(LaunchError::host("make an event"))?,
        })
    }
}

impl Created {
    pub(super) fn new(
        planned: Planned,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, LaunchError> {
        let Planned {
            plan,
            files,
            placement,
            resources,
            emulated,
            #[cfg(debug_assertions)]
            mirror,
        } = planned;
        let Surroundings { screen, progress } = surroundings;
        let assigned = Assigned::open(&plan, Path::new(SYSFS))?;
        let (vm, guest) = Guest::create(&plan)?;
        let fixed = files.firmware.as_ref().map(Firmware::range);
        let pages = memory::take(&plan, &vm, fixed, &resources, progress)?;
        #[cfg(debug_assertions)]
        if mirror == iommu::Mirror::LeftOut {
            tracing::warn!("an accepted device reaches no shared page: for tests only");
            pages.space().leave_out_mirror();
        }
        vm.add_ram(pages.ram())?;
        tracing::info!(ipa_bits = vm.ipa_bits(), "VM and its memory created");
        let (chipset, vcpus) = Chipset::create(&vm, &plan, &pages, &files)?;
        let (mut bus, mut ports) = (Bus::default(), PortBus::default());
        let end = Arc::new(EndOfRun::new().map_err(LaunchError::host("make an event"))?);
        let (mut console, fixtures) = console(&chipset, &vm, screen, &end)?;
        let button = chipset.fit(fixtures, &mut bus, &mut ports, &end)?;
        let connected = assigned.connect(&plan, &pages)?;
        let mut pci = PciBus::new(&plan, &vm).map_err(AttachError::Slot)?;
        let assigned = connected.attach(&plan, &pages, &mut pci)?;
        let terminal = console.terminal()?;
        let mut emulated = emulated.attach(&mut pci, &pages, &end, terminal)?;
        if let Some(input) = emulated.take_input() {
            console.input = input;
        }
        pci.answer_at_ports(&mut ports)?;
        pci.answer(&plan, &mut bus)?;
        tracing::info!(vcpus = vcpus.len(), "devices created");
        Ok(Self {
            plan,
            files,
            placement,
            guest,
            machine: Machine {
                pages,
                vm,
                vcpus,
                pin_vcpus: resources.pin_vcpus,
                chipset,
                bus,
                ports,
                console,
                button,
                assigned,
                emulated,
                end,
            },
        })
    }

    /// Puts the kernel, the initial RAM disk and what the kernel is told into guest memory.
    ///
    /// # Errors
    /// When a file cannot be read any more.
    pub fn load(self) -> Result<Loaded, LaunchError> {
        Loaded::new(self)
    }
}

/// The serial port, the notifier by which a guest that panics ends the run, and the button's wire.
fn console(
    chipset: &Chipset,
    vm: &Vm,
    screen: &Arc<Screen>,
    end: &Arc<EndOfRun>,
) -> Result<(Console, Fixtures), LaunchError> {
    let drained = EventFd::new(EFD_NONBLOCK).map_err(LaunchError::host("make an event"))?;
    let wanted = drained
        .try_clone()
        .map_err(LaunchError::host("make an event"))?;
    let output = Output::to(screen.console(std::io::stdout()))
        .map_err(LaunchError::host("start the console thread"))?;
    let serial = Serial::new(chipset.serial_line(vm), Box::new(output.writer()), wanted);
    let serial = Arc::new(Mutex::new(serial));
    let end = Arc::clone(end);
    let notifier = PanicNotifier::new(move || end.end(Ending::Crash));
    let fixtures = Fixtures {
        serial: Arc::<Mutex<Serial>>::clone(&serial),
        panic: Arc::new(Mutex::new(notifier)) as SharedDevice,
        button: chipset.button_line(vm),
    };
    let console = Console {
        input: Box::new(serial),
        output,
        drained,
    };
    Ok((console, fixtures))
}
