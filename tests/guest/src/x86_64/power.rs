//! Switching the machine off, as ACPI says (6.5, sections 4.8.3 and 7.3.4).

use core::arch::asm;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use super::{mmio, port};

/// How the machine goes to sleep for good.
#[derive(Clone, Copy)]
pub enum Power {
    /// By the sleep control register of hardware-reduced ACPI, in ports.
    SleepPort(u16, u8),
    /// The same in memory.
    SleepMemory(u64, u8),
    /// By the control register of power management, which has a port.
    Control(u16, u8),
    /// Nobody says.
    Unknown,
}

/// What is written where, for whoever gives up: a port, or else an address.
static PORT: AtomicU16 = AtomicU16::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicU16 = AtomicU16::new(0);

/// The type of sleep, and its beginning.
const fn sleep(kind: u8) -> u16 {
    (kind as u16) << 2 | 1 << 5
}

/// Remembers how the machine is switched off.
pub(super) fn init(power: Power) {
    let (port, address, value) = match power {
        Power::SleepPort(port, kind) => (port, 0, sleep(kind)),
        Power::SleepMemory(address, kind) => (0, address, sleep(kind)),
        Power::Control(port, kind) => (port, 0, (kind as u16) << 10 | 1 << 13),
        Power::Unknown => return,
    };
    PORT.store(port, Ordering::Relaxed);
    ADDRESS.store(address, Ordering::Relaxed);
    VALUE.store(value, Ordering::Relaxed);
}

/// Switches the machine off.
pub fn power_off(_: Power) -> ! {
    give_up()
}

/// Switches the machine off, or resets it where it has not said how.
pub fn give_up() -> ! {
    let port = PORT.load(Ordering::Relaxed);
    let address = ADDRESS.load(Ordering::Relaxed);
    let value = VALUE.load(Ordering::Relaxed);
    match (port, address) {
        (0, 0) => {}
        (0, address) => mmio::write8(address, value as u8),
        (port, _) if value > 0xff => port::write16(port, value),
        (port, _) => port::write8(port, value as u8),
    }
    let nothing = [0u8; 10];
    loop {
        // SAFETY: an exception without a table of handlers is a reset, after which nothing matters.
        unsafe { asm!("lidt [{0}]", "ud2", in(reg) &nothing, options(nostack)) };
    }
}
