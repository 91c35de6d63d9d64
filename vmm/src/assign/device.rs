//! A VFIO function as the device behind a passed-through function.

use std::io;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, PoisonError};

use devices::passthrough::{PhysicalFunction, Signals, Span};
use devices::pci::BarIndex;
use devices::pci::registers::{COMMAND, COMMAND_BUS_MASTER, INTERRUPT_PIN};
use vfio::{Function, InterruptKind, Interrupts, Ioas, Motion, RegionIndex, Reset};
use vm_memory::MmapRegion;

use super::to_io;
use crate::causes::chain;
use crate::platform::Platform;

/// Whether a device may do DMA when its guest asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fence {
    Open,
    /// The IOMMU may let it reach memory that it must not.
    Closed,
}

/// A device that this process holds.
pub(super) struct Device {
    function: Function,
    fence: Mutex<Fence>,
}

impl Device {
    pub(super) fn new(function: Function) -> Self {
        Self {
            function,
            fence: Mutex::new(Fence::Open),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.function.name()
    }

    /// The pin by which the device interrupts the host: 1 to 4 for INTA to INTD.
    pub(super) fn interrupt_pin(&self) -> Option<NonZeroU8> {
        let mut pin = [0];
        let register = INTERRUPT_PIN.into();
        let read = self.function.read(RegionIndex::CONFIG, register, &mut pin);
        let wired = read.is_ok() && self.function.vectors(InterruptKind::Intx) != 0;
        NonZeroU8::new(pin[0]).filter(|pin| wired && pin.get() <= 4)
    }

    /// What becomes of the device's DMA while it is moved.
    pub(super) fn motion(&self, ioas: &Ioas) -> Motion {
        self.function.motion(ioas)
    }

    /// Moves the device to another address space of its iommufd.
    pub(super) fn attach(&self, ioas: &Ioas) -> Result<(), vfio::AttachError> {
        self.function.attach(ioas)
    }

    /// Stops the device's DMA for good, whatever its guest asks for.
    pub(super) fn cut_off(&self) {
        let mut fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner);
        *fence = Fence::Closed;
        match self.function.clear_bus_master() {
            Ok(()) => tracing::error!("{}: cut off from memory", self.name()),
            Err(error) => {
                tracing::error!("{}: cannot be cut off: {}", self.name(), chain(&error));
            }
        }
    }

    /// Maps a part of a BAR into this process.
    pub(super) fn map(&self, bar: BarIndex, span: Span) -> io::Result<MmapRegion> {
        let span = vfio::Span {
            start: span.start,
            end: span.end,
        };
        self.function.map(region(bar), span).map_err(to_io)
    }
}

fn region(bar: BarIndex) -> RegionIndex {
    RegionIndex::bar(bar.number()).unwrap_or(RegionIndex::CONFIG)
}

/// How a guest reaches the registers of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registers {
    /// As memory of the VM where a page allows it.
    Mapped,
    /// By an exit for each access.
    Trapped,
}

impl Registers {
    /// What a platform allows. Memory of a protected VM of pKVM is taken from the host, which device
    /// registers cannot be (`pkvm_mem_abort` of Linux pins what it maps), and a slot is there for good once
    /// the VM has run.
    pub(super) const fn of(platform: Platform) -> Self {
        match platform {
            Platform::Pkvm => Self::Trapped,
            _ => Self::Mapped,
        }
    }
}

/// What a passed-through function does to its device.
pub(super) struct Physical {
    /// The device.
    pub(super) device: Arc<Device>,
    /// How its registers are reached.
    pub(super) registers: Registers,
}

impl PhysicalFunction for Physical {
    fn config_bytes(&self) -> u16 {
        // 256 or 4096: checked when it was opened.
        let bytes = self.device.function.region(RegionIndex::CONFIG).size();
        u16::try_from(bytes).unwrap_or(256)
    }

    fn config_read(&self, register: u16, data: &mut [u8]) -> io::Result<()> {
        let function = &self.device.function;
        let read = function.read(RegionIndex::CONFIG, register.into(), data);
        read.map_err(to_io)
    }

    fn config_write(&self, register: u16, data: &[u8]) -> io::Result<()> {
        let device = &self.device;
        let fence = device.fence.lock().unwrap_or_else(PoisonError::into_inner);
        let mut data = data.to_vec();
        if *fence == Fence::Closed {
            without_bus_master(register, &mut data);
        }
        let written = device
            .function
            .write(RegionIndex::CONFIG, register.into(), &data);
        written.map_err(to_io)
    }

    fn bar_bytes(&self, bar: BarIndex) -> u64 {
        self.device.function.region(region(bar)).size()
    }

    fn bar_mappable(&self, bar: BarIndex) -> Vec<Span> {
        if self.registers == Registers::Trapped {
            return Vec::new();
        }
        let spans = self.device.function.region(region(bar)).mappable().iter();
        let spans = spans.map(|span| Span {
            start: span.start,
            end: span.end,
        });
        spans.collect()
    }

    fn bar_read(&self, bar: BarIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let read = self.device.function.read(region(bar), offset, data);
        read.map_err(to_io)
    }

    fn bar_write(&self, bar: BarIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        let written = self.device.function.write(region(bar), offset, data);
        written.map_err(to_io)
    }

    fn signal(&mut self, signals: Signals<'_>) -> io::Result<()> {
        let interrupts = match signals {
            Signals::Intx { trigger, resample } => Interrupts::Intx { trigger, resample },
            Signals::Msi(events) => Interrupts::Msi(events),
            Signals::Msix(events) => Interrupts::Msix(events),
        };
        self.device
            .function
            .set_interrupts(interrupts)
            .map_err(to_io)
    }

    fn silence(&mut self) -> io::Result<()> {
        self.device.function.clear_interrupts().map_err(to_io)
    }

    fn reset(&mut self) -> io::Result<()> {
        match self.device.function.reset().map_err(to_io)? {
            Reset::Done => {}
            Reset::BusMasterCleared(error) => {
                tracing::debug!("{}: stopped, not reset: {error}", self.device.name());
            }
        }
        Ok(())
    }
}

/// Takes the bus-master bit out of a write to configuration space.
fn without_bus_master(register: u16, data: &mut [u8]) {
    let [low, _] = COMMAND_BUS_MASTER.to_le_bytes();
    let at = COMMAND.checked_sub(register).map(usize::from);
    if let Some(byte) = at.and_then(|at| data.get_mut(at)) {
        *byte &= !low;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_device_is_not_made_bus_master_by_any_write() {
        for (register, mut data, expected) in [
            (4, vec![0x07, 0x04], vec![0x03, 0x04]),
            (2, vec![0xff; 4], vec![0xff, 0xff, 0xfb, 0xff]),
            (5, vec![0xff], vec![0xff]),
            (0, vec![0xff; 4], vec![0xff; 4]),
        ] {
            without_bus_master(register, &mut data);
            assert_eq!(data, expected, "{register:#x}");
        }
    }
}
