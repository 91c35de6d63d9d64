//! All the firmware that there is: code at the reset vector, which asks for a reset.
//!
//! Linux on hardware-reduced ACPI resets by EFI, and where there is none by real mode and the reset
//! vector, before it comes to think of the FADT (`native_machine_emergency_restart()`).

use devices::power::PowerRegisters;

use super::ports;

/// 16-bit code for [`low_memory::RESET_VECTOR`](super::low_memory::RESET_VECTOR).
///
/// ```text
///    mov al, RESET_VALUE
///    mov dx, the port of the reset register
///    out dx, al
/// 1: hlt
///    jmp 1b
/// ```
pub(super) const CODE: [u8; 9] = {
    let [low, high] = (ports::POWER.first() + PowerRegisters::RESET).to_le_bytes();
    let value = PowerRegisters::RESET_VALUE;
    [0xb0, value, 0xba, low, high, 0xee, 0xf4, 0xeb, 0xfd]
};

const _: () = assert!(CODE.len() <= 16, "there are 16 bytes up to 1 MiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_writes_the_reset_value_to_the_reset_register() {
        assert_eq!(CODE, *b"\xb0\x01\xba\x02\x06\xee\xf4\xeb\xfd");
    }
}
