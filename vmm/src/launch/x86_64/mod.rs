//! An x86-64 machine: local APICs and IOAPIC in the kernel, devices at I/O ports, ACPI.

mod guest;
mod ioapic_line;
mod load;

use std::sync::{Arc, Mutex};

use devices::bus::{Bus, SharedDevice};
use devices::ioapic::{self, Ioapic};
use devices::irq::IrqLine;
use devices::ports::PortBus;
use devices::power::{KeyboardController, PowerRegisters, PowerRequest};
use iommu::{Gpa, PageRange};
use kvm::snp::CpuidPage;
use kvm::x86_64::{Cpuid, Processors};
use kvm::{IrqInput, Vcpu, Vm, VmKind};

use crate::boot::BootFiles;
use crate::boot::firmware::Firmware;
pub(super) use crate::boot::x86_64::{Image as KernelImage, LoadError, Placement};
use crate::boot::x86_64::{lines, ports as fixed};
use crate::convert::Pages;
use crate::plan::{Board, VmPlan};
use crate::platform::LastFault;
use crate::power_button::PowerButton;
use crate::run::{EndOfRun, Ending};
use crate::vcpu::{Processor, RealmOff, Retries, World};

use super::LaunchError;
use super::line::ControllerLine;
pub(super) use guest::{Guest, LoadedGuest};
use ioapic_line::IoapicLine;
pub(super) use load::load;

/// Where the registers of the IOAPIC are, on any PC.
const IOAPIC: Gpa = Gpa::new(0xfec0_0000);

/// No processor has fewer address bits, and kernels count on it.
const FEWEST_PHYSICAL_BITS: u8 = 36;

/// What the machine has besides memory, processors and devices on buses, most of it in the kernel. And what
/// its processors are.
pub(super) struct Chipset {
    supported: Cpuid,
    processors: Processors,
    /// Where KVM has none.
    ioapic: Option<Arc<Mutex<Ioapic>>>,
}

/// The devices of every machine that ccvm makes.
pub(super) struct Fixtures {
    /// The serial port.
    pub(super) serial: SharedDevice,
    /// Where a guest that panics says so.
    pub(super) panic: SharedDevice,
    /// What the power button interrupts by.
    pub(super) button: Arc<dyn IrqLine>,
}

impl Chipset {
    /// Gives `vm`, which has its memory, the interrupt controllers and the processors of `plan`.
    pub(super) fn create(
        vm: &Vm,
        plan: &VmPlan,
        _: &Arc<Pages>,
        files: &BootFiles<KernelImage>,
    ) -> Result<(Self, Vec<Vcpu>), LaunchError> {
        let Board::Pc(_) = plan.board() else {
            return Err(LaunchError::OtherMachine);
        };
        let is_td = vm.kind() == VmKind::Td;
        match is_td {
            // The TDX module has the time stamp counters of its guests.
            true => vm.create_local_apics()?,
            false => {
                vm.create_irqchip()?;
                vm.keep_tsc_rate()?;
            }
        }
        let supported = Cpuid::supported(vm)?;
        let processors = Processors {
            count: plan.vcpus(),
            physical_bits: plan.ipa_bits().max(FEWEST_PHYSICAL_BITS),
        };
        let told = files.firmware.as_ref().map(Firmware::hob);
        let vcpus = (0..plan.vcpus()).map(|index| match told {
            Some(told) if is_td => Vcpu::create_in_td(vm, index, told.raw()),
            _ => Vcpu::create(vm, index, &supported, processors),
        });
        let vcpus = vcpus.collect::<Result<_, _>>()?;
        let chipset = Self {
            supported,
            processors,
            ioapic: is_td.then(|| ioapic_line::ioapic(vm)),
        };
        Ok((chipset, vcpus))
    }

    /// Which address bit says encrypted to an SNP guest, and the page that tells it of its processors.
    fn encrypted(&self) -> Result<(u8, CpuidPage), LaunchError> {
        let bit = self.supported.encryption_bit();
        let bit = bit.ok_or(kvm::Error::Missing("address bit that says encrypted"))?;
        Ok((bit, CpuidPage::new(&self.supported, self.processors)?))
    }

    /// What the serial port is wired to.
    pub(super) fn serial_line(&self, vm: &Vm) -> Arc<dyn IrqLine> {
        self.line(vm, lines::SERIAL)
    }

    /// What the power button is wired to.
    pub(super) fn button_line(&self, vm: &Vm) -> Arc<dyn IrqLine> {
        self.line(vm, lines::POWER_BUTTON)
    }

    /// What drives `input` of the IOAPIC, KVM's or ours.
    fn line(&self, vm: &Vm, input: u32) -> Arc<dyn IrqLine> {
        match &self.ioapic {
            None => Arc::new(ControllerLine::new(vm, IrqInput::new(input))),
            Some(ioapic) => Arc::new(IoapicLine {
                ioapic: Arc::clone(ioapic),
                input: input as usize,
            }),
        }
    }

    /// Puts the devices at the ports where the ACPI tables say that they are.
    pub(super) fn fit(
        &self,
        fixtures: Fixtures,
        bus: &mut Bus,
        ports: &mut PortBus,
        end: &Arc<EndOfRun>,
    ) -> Result<PowerButton, LaunchError> {
        let power = PowerRegisters::new(on_request(end));
        let keyboard = KeyboardController::new(on_request(end));
        ports.insert(fixed::SERIAL, fixtures.serial)?;
        ports.insert(fixed::PANIC, fixtures.panic)?;
        ports.insert(fixed::POWER, Arc::new(Mutex::new(power)))?;
        ports.insert(fixed::KEYBOARD_COMMAND, Arc::new(Mutex::new(keyboard)))?;
        if let Some(ioapic) = &self.ioapic {
            let at = PageRange::new(IOAPIC, ioapic::BYTES).map_err(LaunchError::Segment)?;
            bus.insert(at, Arc::<Mutex<Ioapic>>::clone(ioapic))?;
        }
        let button = fixtures.button;
        Ok(PowerButton::new(move || button.pulse()))
    }

    /// A processor as it will run.
    pub(super) fn processor(&self, vcpu: Vcpu, world: Arc<World>) -> Processor {
        Processor {
            vcpu,
            last_fault: LastFault::default(),
            realm_off: RealmOff::default(),
            retries: Retries::default(),
            world,
        }
    }
}

fn on_request(end: &Arc<EndOfRun>) -> impl FnMut(PowerRequest) + Send + 'static {
    let end = Arc::clone(end);
    move |request| {
        end.end(match request {
            PowerRequest::Off => Ending::PowerOff,
            PowerRequest::Reset => Ending::Reboot,
        });
    }
}
