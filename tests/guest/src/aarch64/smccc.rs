//! Calls to whoever is beneath.

use core::arch::asm;

/// How to call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Conduit {
    /// `hvc`.
    Hvc,
    /// `smc`.
    Smc,
}

/// Registers x0 to x10.
pub type Registers = [u64; 11];

macro_rules! call {
    ($instruction:literal, $registers:ident) => {
        // SAFETY: the calls of this guest change no memory that the compiler knows to be constant,
        // and SMCCC preserves all registers that are not named here.
        unsafe {
            asm!(
                $instruction,
                inout("x0") $registers[0], inout("x1") $registers[1], inout("x2") $registers[2],
                inout("x3") $registers[3], inout("x4") $registers[4], inout("x5") $registers[5],
                inout("x6") $registers[6], inout("x7") $registers[7], inout("x8") $registers[8],
                inout("x9") $registers[9], inout("x10") $registers[10],
                lateout("x11") _, lateout("x12") _, lateout("x13") _, lateout("x14") _,
                lateout("x15") _, lateout("x16") _, lateout("x17") _,
                options(nostack),
            )
        }
    };
}

/// Makes a call: x0 is the function; returns all registers after it.
pub fn call(conduit: Conduit, mut registers: Registers) -> Registers {
    match conduit {
        Conduit::Hvc => call!("hvc #0", registers),
        Conduit::Smc => call!("smc #0", registers),
    }
    registers
}

/// `SYSTEM_OFF` of PSCI; by the other conduit when this one does not answer.
pub fn power_off(conduit: Conduit) -> ! {
    const SYSTEM_OFF: u64 = 0x8400_0008;
    let other = match conduit {
        Conduit::Hvc => Conduit::Smc,
        Conduit::Smc => Conduit::Hvc,
    };
    let mut registers = [0; 11];
    registers[0] = SYSTEM_OFF;
    call(conduit, registers);
    call(other, registers);
    loop {}
}
