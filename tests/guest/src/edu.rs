//! QEMU's edu device (`docs/specs/edu.rst` of QEMU): copies between memory and a buffer of its own.

use crate::machine::Machine;
use crate::pci::Function;
use crate::{mmio, time};

/// How many bytes one transfer copies: half of the device's buffer, since QEMU takes a transfer that
/// ends where the buffer ends for one that runs over, and aborts.
pub const BYTES: u64 = 2048;

/// Where the buffer is, in the addresses of the device's DMA engine.
const BUFFER_ADDRESS: u64 = 0x4_0000;

mod register {
    pub(super) const ID: u64 = 0;
    pub(super) const SOURCE: u64 = 0x80;
    pub(super) const DESTINATION: u64 = 0x88;
    pub(super) const COUNT: u64 = 0x90;
    pub(super) const COMMAND: u64 = 0x98;
}

const START: u64 = 1;
const TO_MEMORY: u64 = 2;

/// The device.
pub struct Edu {
    /// Its configuration.
    pub function: Function,
    /// Its requester id: what the IOMMU knows it by.
    pub endpoint: u32,
    /// Where its registers are accessed.
    pub base: u64,
}

impl Edu {
    /// The device, switched on.
    pub fn find(machine: &Machine<'_>) -> Result<Self, &'static str> {
        Self::at(machine, 0)
    }

    /// The device that is number `index` of its kind on the bus, switched on.
    pub fn at(machine: &Machine<'_>, index: usize) -> Result<Self, &'static str> {
        let mut functions = Function::every(machine, 0x1234, 0x11e8);
        let function = functions.nth(index).ok_or("there is no edu device")?;
        let base = function
            .enable(machine)
            .ok_or("edu has no place for its registers")?;
        // Version 1.0.
        if mmio::read32(base + register::ID) != 0x0100_00ed {
            return Err("edu does not answer");
        }
        let endpoint = function.id.into();
        Ok(Self {
            function,
            endpoint,
            base,
        })
    }

    /// Fills the buffer from DMA address `address`.
    pub fn read(&self, address: u64) -> Result<(), &'static str> {
        self.copy(address, BUFFER_ADDRESS, 0)
    }

    /// Writes the buffer to DMA address `address`.
    pub fn write(&self, address: u64) -> Result<(), &'static str> {
        self.copy(BUFFER_ADDRESS, address, TO_MEMORY)
    }

    fn copy(&self, from: u64, to: u64, direction: u64) -> Result<(), &'static str> {
        mmio::barrier();
        mmio::write64(self.base + register::SOURCE, from);
        mmio::write64(self.base + register::DESTINATION, to);
        mmio::write64(self.base + register::COUNT, BYTES);
        mmio::write64(self.base + register::COMMAND, START | direction);
        let idle = || mmio::read64(self.base + register::COMMAND) & START == 0;
        if !time::wait(10, idle) {
            return Err("edu does not finish");
        }
        mmio::barrier();
        Ok(())
    }
}
