//! The 16550 that every PC has.

use super::port;

const COM1: u16 = 0x3f8;

/// Line status register: the transmitter takes a byte.
const LINE_STATUS: u16 = 5;
const TRANSMITTER_EMPTY: u8 = 0x20;

/// Prints a byte.
pub fn put(byte: u8) {
    while port::read8(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
    port::write8(COM1, byte);
}
