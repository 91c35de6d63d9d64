//! Just enough PCI: finds functions, gives their registers a place, switches them on.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine::{Machine, Range};
use crate::mmio;

/// A function on bus 0.
#[derive(Clone, Copy)]
pub struct Function {
    /// Its requester id: device and function number.
    pub id: u16,
    config: u64,
}

/// Registers of configuration space.
mod register {
    pub(super) const IDS: u64 = 0;
    pub(super) const COMMAND: u64 = 4;
    pub(super) const CLASS: u64 = 8;
    pub(super) const BAR0: u64 = 0x10;
    pub(super) const CAPABILITIES: u64 = 0x34;
}

const MEMORY_AND_MASTER: u32 = 6;
/// Of a BAR: the register after it has the upper half of the address.
const IS_64_BIT: u32 = 4;

/// How much of each window is in use.
struct Used {
    window_32: AtomicU64,
    window_64: AtomicU64,
}

static USED: Used = Used {
    window_32: AtomicU64::new(0),
    window_64: AtomicU64::new(0),
};

impl Function {
    /// The functions of bus 0.
    pub fn all(machine: &Machine<'_>) -> impl Iterator<Item = Self> {
        let base = machine.ecam.map(|ecam| machine.shared(ecam.start));
        let functions = (0..256).filter_map(move |id: u16| {
            let config = base? + (u64::from(id) << 12);
            Some(Self { id, config })
        });
        functions.filter(|function| function.read(register::IDS) != u32::MAX)
    }

    /// The first function with these ids.
    pub fn find(machine: &Machine<'_>, vendor: u16, device: u16) -> Option<Self> {
        Self::every(machine, vendor, device).next()
    }

    /// The functions with these ids.
    pub fn every(machine: &Machine<'_>, vendor: u16, device: u16) -> impl Iterator<Item = Self> {
        let ids = u32::from(device) << 16 | u32::from(vendor);
        Self::all(machine).filter(move |function| function.read(register::IDS) == ids)
    }

    /// The first function of this class, with its programming interface.
    pub fn of_class(machine: &Machine<'_>, class: u32) -> Option<Self> {
        Self::all(machine).find(|function| function.read(register::CLASS) >> 8 == class)
    }

    /// Reads 32 bits of configuration space.
    pub fn read(&self, register: u64) -> u32 {
        mmio::read32(self.config + register)
    }

    /// Writes 32 bits of configuration space.
    pub fn write(&self, register: u64, value: u32) {
        mmio::write32(self.config + register, value);
    }

    /// Gives BAR 0 a place and enables memory and DMA; returns where the BAR is to be accessed.
    pub fn enable(&self, machine: &Machine<'_>) -> Option<u64> {
        let place = self.place(machine, 0)?;
        self.switch_on();
        Some(machine.shared(place.start))
    }

    /// Enables memory and DMA.
    pub fn switch_on(&self) {
        // The upper half, the status, is cleared by ones: zeros leave it alone.
        self.write(register::COMMAND, MEMORY_AND_MASTER);
    }

    /// Gives a memory BAR a place in the machine's windows, as PCI addresses have it.
    pub fn place(&self, machine: &Machine<'_>, bar: u64) -> Option<Range> {
        let low = register::BAR0 + 4 * bar;
        self.write(low, u32::MAX);
        let mask = self.read(low);
        let is_64_bit = mask & IS_64_BIT != 0;
        let mask = u64::from(mask & !0xf) | 0xffff_ffff << 32;
        let bytes = (!mask).checked_add(1).filter(|_| mask as u32 != 0)?;
        let upper = machine.window_64.filter(|_| is_64_bit);
        let place = upper
            .and_then(|window| next(window, &USED.window_64, bytes))
            .or_else(|| next(machine.window?, &USED.window_32, bytes))?;
        self.write(low, place.start as u32);
        if is_64_bit {
            self.write(low + 4, (place.start >> 32) as u32);
        }
        Some(place)
    }

    /// The offsets of the capabilities with this id.
    pub fn capabilities(&self, id: u8) -> impl Iterator<Item = u64> {
        const MOST: usize = 48;
        let pointer = |word: u32| u64::from(word & 0xfc);
        let first = pointer(self.read(register::CAPABILITIES));
        let next = move |at: &u64| Some(pointer(self.read(*at) >> 8));
        let all = core::iter::successors(Some(first), next).take(MOST);
        let all = all.take_while(|at| *at != 0);
        all.filter(move |at| self.read(*at) as u8 == id)
    }
}

/// The next free place for `bytes` bytes in a window.
fn next(window: Range, used: &AtomicU64, bytes: u64) -> Option<Range> {
    let start = window.start + used.load(Ordering::Relaxed);
    let start = start.next_multiple_of(bytes);
    let end = start.checked_add(bytes)?;
    if end > window.end {
        return None;
    }
    used.store(end - window.start, Ordering::Relaxed);
    Some(Range { start, end })
}
