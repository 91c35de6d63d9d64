//! The FADT: what hardware there is not, and the registers for power.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use devices::power::PowerRegisters;

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::boot::x86_64::ports;

// IA-PC boot architecture flags (ACPI 6.5, 5.2.9.3). No 8042 and no legacy devices: by leaving them out.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_CLOCK: u16 = 1 << 5;

/// The FADT of a machine whose DSDT is at `dsdt`.
pub(super) fn fadt(dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        // Buttons would be devices of the DSDT.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_CLOCK).into();
    fadt.reset_reg = register(PowerRegisters::RESET);
    fadt.reset_value = PowerRegisters::RESET_VALUE;
    fadt.sleep_control_reg = register(PowerRegisters::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(PowerRegisters::SLEEP_STATUS);
    fadt.finalize()
}

fn register(number: u16) -> GAS {
    let port = ports::POWER.first() + number;
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        port.into(),
    )
}
