//! The inputs of the IOAPIC, and what is wired to them.

/// The serial port: where the first one of a PC has been since ever.
pub const SERIAL: u32 = 4;
/// The first of the four inputs that the INTx pins of PCI functions share, above those of ISA.
pub const INTX: u32 = 16;

/// The power button: the first input above those of PCI.
pub const POWER_BUTTON: u32 = 20;

/// The input of `pin` (0 for INTA up to 3 for INTD) of device number `device`.
#[must_use]
pub const fn intx(device: u8, pin: u8) -> u32 {
    INTX + (device as u32 + pin as u32) % 4
}
