//! An arm64 machine: GICv3, everything in memory, a device tree.

mod guest;
mod load;

use std::sync::{Arc, Mutex, PoisonError};

use devices::bus::{Bus, SharedDevice};
use devices::gpio::Gpio;
use devices::irq::IrqLine;
use devices::pair::Pair;
use devices::ports::PortBus;
use devices::rtc::Rtc;
use kvm::aarch64::{Gic, GicLayout, PlacedGic, PowerState};
use kvm::{Ipa, IrqInput, Vcpu, Vm};

use crate::boot::BootFiles;
use crate::boot::aarch64::fdt::{PANIC_OFFSET, lines};
pub(super) use crate::boot::aarch64::{Image as KernelImage, LoadError, Placement};
use crate::convert::Pages;
use crate::plan::{Board, MmioLayout, VmPlan};
use crate::platform::emulated_realm::RealmVm;
use crate::platform::{LastFault, Platform};
use crate::power_button::PowerButton;
use crate::run::EndOfRun;
use crate::vcpu::{Processor, RealmOff, Retries, World};

use super::LaunchError;
use super::line::ControllerLine;
pub(super) use guest::{Guest, LoadedGuest};
pub(super) use load::load;

/// What the machine has besides memory, processors and devices on buses.
pub(super) struct Chipset {
    _gic: Gic,
    mmio: MmioLayout,
    /// What the VM is to its guest, where that is more than a plain VM.
    realm: Option<RealmVm>,
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
    /// Gives `vm`, which has its memory, the processors and the interrupt controller of `plan`.
    pub(super) fn create(
        vm: &Vm,
        plan: &VmPlan,
        pages: &Arc<Pages>,
        _: &BootFiles<KernelImage>,
    ) -> Result<(Self, Vec<Vcpu>), LaunchError> {
        let Board::Arm(mmio) = *plan.board() else {
            return Err(LaunchError::OtherMachine);
        };
        // The RMM says what a Realm's accesses are.
        if plan.platform() != Platform::Cca && !vm.exit_without_syndrome()? {
            tracing::info!("this KVM ends the VM when a guest accesses a device in an odd way");
        }
        let realm = realm(vm, pages, plan)?;
        let at =
            |range: iommu::PageRange<iommu::Gpa>| Ipa::shared(range.start(), plan.device_bit());
        let layout = GicLayout {
            distributor: at(mmio.gic_distributor),
            redistributors: at(mmio.gic_redistributors),
            its: at(mmio.gic_its),
        };
        let gic = PlacedGic::create(vm, layout)?;
        let vcpus = vcpus(vm, plan.vcpus())?;
        let chipset = Self {
            _gic: gic.initialise(lines::COUNT)?,
            mmio,
            realm,
        };
        Ok((chipset, vcpus))
    }

    /// What the serial port is wired to.
    #[expect(clippy::unused_self, reason = "other machines have lines of their own")]
    pub(super) fn serial_line(&self, vm: &Vm) -> Arc<dyn IrqLine> {
        Arc::new(ControllerLine::new(vm, IrqInput::new(lines::SERIAL)))
    }

    /// What the power button is wired to.
    #[expect(clippy::unused_self, reason = "other machines have lines of their own")]
    pub(super) fn button_line(&self, vm: &Vm) -> Arc<dyn IrqLine> {
        Arc::new(ControllerLine::new(vm, IrqInput::new(lines::GPIO)))
    }

    /// Puts the devices where the device tree says that they are.
    pub(super) fn fit(
        &self,
        fixtures: Fixtures,
        bus: &mut Bus,
        _: &mut PortBus,
        _: &Arc<EndOfRun>,
    ) -> Result<PowerButton, LaunchError> {
        let page = Pair::new(fixtures.serial, PANIC_OFFSET, fixtures.panic);
        bus.insert(self.mmio.serial, Arc::new(Mutex::new(page)))?;
        bus.insert(self.mmio.rtc, Arc::new(Mutex::new(Rtc::new())))?;
        let gpio = Arc::new(Mutex::new(Gpio::new(fixtures.button)));
        bus.insert(self.mmio.gpio, Arc::<Mutex<Gpio>>::clone(&gpio))?;
        Ok(PowerButton::new(move || {
            let mut gpio = gpio.lock().unwrap_or_else(PoisonError::into_inner);
            gpio.press();
        }))
    }

    /// A processor as it will run.
    pub(super) fn processor(&self, vcpu: Vcpu, world: Arc<World>) -> Processor {
        Processor {
            vcpu,
            calls: self.realm.as_ref().map(RealmVm::calls),
            last_fault: LastFault::default(),
            realm_off: RealmOff::default(),
            retries: Retries::default(),
            world,
        }
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
