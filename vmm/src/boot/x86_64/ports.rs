//! The I/O ports of the machine's own devices. Those of PCI functions are above, where the plan says.

use devices::ports::PortRange;

/// The command port of the keyboard controller, for those who reset by it.
pub const KEYBOARD_COMMAND: PortRange = PortRange::one(0x64);
/// The 16550 serial port: COM1.
pub const SERIAL: PortRange = range(0x3f8, 8);
/// The panic notifier, where QEMU has it.
pub const PANIC: PortRange = PortRange::one(0x505);
/// Sleep control, sleep status and reset (`devices::power::PowerRegisters`).
pub const POWER: PortRange = range(0x600, 3);

const fn range(first: u16, count: u16) -> PortRange {
    match PortRange::new(first, first + (count - 1)) {
        Some(range) => range,
        None => PortRange::one(first),
    }
}
