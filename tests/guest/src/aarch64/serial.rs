//! The 16550 that the device tree names.

use core::sync::atomic::{AtomicU64, Ordering};

use super::mmio;
use crate::machine::Machine;

/// The address of the serial port, where there is one.
static PORT: AtomicU64 = AtomicU64::new(0);

/// Line status register: the transmitter takes a byte.
const LINE_STATUS: u64 = 5;
const TRANSMITTER_EMPTY: u8 = 0x20;

/// Prints on the machine's port from now on.
pub(super) fn init(machine: &Machine<'_>) {
    let address = match machine.registers.start {
        0 => 0,
        start => machine.shared(start),
    };
    PORT.store(address, Ordering::Relaxed);
}

/// Prints a byte.
pub fn put(byte: u8) {
    let port = PORT.load(Ordering::Relaxed);
    if port == 0 {
        return;
    }
    while mmio::read8(port + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
    mmio::write8(port, byte);
}
