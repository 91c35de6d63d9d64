//! The second stage: a VM with memory, vCPUs, interrupt controller and devices, and nothing in it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use devices::bus::Bus;
use devices::pair::Pair;
use devices::panic::PanicNotifier;
use devices::rtc::Rtc;
use devices::serial::Serial;
use kvm::aarch64::{Gic, GicLayout, PowerState, Vcpu};
use kvm::{Ipa, Vm};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::assign::{Assigned, Attached};
use crate::boot::BootFiles;
use crate::boot::aarch64::Placement;
use crate::boot::aarch64::fdt::{PANIC_OFFSET, lines};
use crate::convert::Pages;
use crate::plan::{MmioLayout, VmPlan};
use crate::platform::Platform;
use crate::platform::emulated_realm::RealmVm;
use crate::run::{EndOfRun, Ending, Output};

use super::line::GicLine;
use super::planned::SYSFS;
use super::{LaunchError, Loaded, Planned};

/// A VM that is there, without a program.
pub struct Created {
    pub(super) plan: VmPlan,
    pub(super) mmio: MmioLayout,
    pub(super) files: BootFiles,
    pub(super) placement: Placement,
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
    /// Its interrupt controller.
    pub(super) gic: Gic,
    /// Its devices.
    pub(super) bus: Bus,
    /// Its console.
    pub(super) console: Console,
    /// The devices of the host that it has.
    pub(super) assigned: Attached,
    /// What it is to its guest, where that is more than a plain VM.
    pub(super) realm: Option<RealmVm>,
    /// Where its end is noted.
    pub(super) end: Arc<EndOfRun>,
}

/// The console of a VM.
pub(super) struct Console {
    /// The port.
    pub(super) serial: Arc<Mutex<Serial>>,
    /// Where its output goes.
    pub(super) output: Output,
    /// Signalled when the guest has taken all of its input.
    pub(super) drained: EventFd,
}

impl Created {
    pub(super) fn new(planned: Planned) -> Result<Self, LaunchError> {
        let Planned {
            plan,
            files,
            placement,
        } = planned;
        let mmio = *plan.mmio().ok_or(LaunchError::NoMmio)?;
        let mut assigned = Assigned::open(&plan, Path::new(SYSFS))?;
        let pages = Arc::new(Pages::new(&plan)?);
        let vm = Vm::create(plan.ipa_bits())?;
        vm.add_ram(pages.ram())?;
        tracing::info!(ipa_bits = vm.ipa_bits(), "VM and its memory created");
        if !vm.exit_without_syndrome()? {
            tracing::info!("this KVM ends the VM when a guest accesses a device in an odd way");
        }
        let realm = realm(&vm, &pages, &plan)?;
        let vcpus = vcpus(&vm, plan.vcpus())?;
        let at =
            |range: iommu::PageRange<iommu::Gpa>| Ipa::shared(range.start(), plan.shared_bit());
        let layout = GicLayout {
            distributor: at(mmio.gic_distributor),
            redistributors: at(mmio.gic_redistributors),
            its: at(mmio.gic_its),
        };
        let gic = Gic::create(&vm, layout, lines::COUNT)?;
        let mut bus = Bus::default();
        let end = Arc::new(EndOfRun::new().map_err(LaunchError::host("make an event"))?);
        let console = console(&vm, &mmio, &mut bus, &end)?;
        bus.insert(mmio.rtc, Arc::new(Mutex::new(Rtc::new())))?;
        assigned.connect(&pages)?;
        let assigned = assigned.attach(&plan, &vm, &mut bus)?;
        tracing::info!(vcpus = vcpus.len(), "devices created");
        Ok(Self {
            plan,
            mmio,
            files,
            placement,
            machine: Machine {
                pages,
                vm,
                vcpus,
                gic,
                bus,
                console,
                assigned,
                realm,
                end,
            },
        })
    }

    /// Puts the kernel, its device tree and the initial RAM disk into guest memory.
    ///
    /// # Errors
    /// When a file cannot be read any more.
    pub fn load(self) -> Result<Loaded, LaunchError> {
        Loaded::new(self)
    }
}

fn realm(vm: &Vm, pages: &Arc<Pages>, plan: &VmPlan) -> Result<Option<RealmVm>, kvm::Error> {
    match plan.platform() {
        Platform::EmulatedRealm => RealmVm::new(vm, Arc::clone(pages), plan.ipa_bits()).map(Some),
        Platform::None
        | Platform::Cca
        | Platform::Pkvm
        | Platform::SwProtected
        | Platform::Snp
        | Platform::Tdx => Ok(None),
    }
}

/// The boot processor, and the others waiting for it.
fn vcpus(vm: &Vm, count: u32) -> Result<Vec<Vcpu>, kvm::Error> {
    (0..count)
        .map(|index| {
            let power = match index {
                0 => PowerState::On,
                _ => PowerState::Off,
            };
            Vcpu::create(vm, index, power)
        })
        .collect()
}

/// The serial port, and in the same page the notifier by which a guest that panics ends the run.
fn console(
    vm: &Vm,
    mmio: &MmioLayout,
    bus: &mut Bus,
    end: &Arc<EndOfRun>,
) -> Result<Console, LaunchError> {
    let drained = EventFd::new(EFD_NONBLOCK).map_err(LaunchError::host("make an event"))?;
    let wanted = drained
        .try_clone()
        .map_err(LaunchError::host("make an event"))?;
    let output =
        Output::to(std::io::stdout()).map_err(LaunchError::host("start the console thread"))?;
    let line = GicLine::new(vm, lines::SERIAL);
    let serial = Serial::new(Arc::new(line), Box::new(output.writer()), wanted);
    let serial = Arc::new(Mutex::new(serial));
    let end = Arc::clone(end);
    let notifier = PanicNotifier::new(move || end.end(Ending::Crash));
    let port = Arc::<Mutex<Serial>>::clone(&serial);
    let page = Pair::new(port, PANIC_OFFSET, Arc::new(Mutex::new(notifier)));
    bus.insert(mmio.serial, Arc::new(Mutex::new(page)))?;
    Ok(Console {
        serial,
        output,
        drained,
    })
}
