//! Just enough PCI: finds a function by its ids, gives it a place, switches it on.

use crate::machine::Machine;
use crate::mmio;

/// A function on bus 0.
pub struct Function {
    config: u64,
}

const COMMAND: u64 = 4;
const MEMORY_AND_MASTER: u32 = 6;
const BAR0: u64 = 0x10;

impl Function {
    /// The first function of bus 0 with these ids.
    pub fn find(machine: &Machine<'_>, vendor: u16, device: u16) -> Option<Self> {
        let ecam = machine.ecam?;
        let configs = (0..256).map(|function| machine.shared(ecam.start) + (function << 12));
        let ids = u32::from(device) << 16 | u32::from(vendor);
        let mut found = configs.filter(|&config| mmio::read32(config) == ids);
        found.next().map(|config| Self { config })
    }

    /// Puts the 32-bit BAR 0 at the start of the machine's window and enables memory and DMA; returns
    /// where the BAR is to be accessed.
    pub fn enable(&self, machine: &Machine<'_>) -> Option<u64> {
        let window = machine.window?;
        mmio::write32(self.config + BAR0, u32::MAX);
        let mask = mmio::read32(self.config + BAR0) & !0xf;
        let bytes = u64::from(!mask) + 1;
        let place = window.start.next_multiple_of(bytes);
        if mask == 0 || place + bytes > window.end {
            return None;
        }
        mmio::write32(self.config + BAR0, u32::try_from(place).ok()?);
        // The upper half, the status, is cleared by ones: zeros leave it alone.
        mmio::write32(self.config + COMMAND, MEMORY_AND_MASTER);
        Some(machine.shared(place))
    }
}
