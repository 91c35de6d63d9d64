//! The power button: a control-method button (ACPI 6.5, 4.8.2.2.1.2) of which a generic event device
//! tells (5.6.9), since hardware-reduced ACPI has no registers for one.
//!
//! ```text
//! press ─► edge at the IOAPIC ─► GED0._EVT ─► Notify (PWRB, 0x80) ─► the kernel's KEY_POWER
//! ```

use acpi_tables::aml::{EISAName, Interrupt, Method, Notify, Path, ZERO};

use super::{Written, device, name, resources};
use crate::boot::x86_64::lines;

/// What a button is notified of when it is pressed (ACPI 6.5, 5.6.6).
const PRESSED: u8 = 0x80;

/// The button, and what tells of it.
pub(super) fn devices() -> [Written; 2] {
    let interrupt = Interrupt::new(true, true, false, false, lines::POWER_BUTTON);
    let button = Path::new("PWRB");
    let notify = Notify::new(&button, &PRESSED);
    let event = Method::new(Path::new("_EVT"), 1, true, vec![&notify]);
    [
        device(
            "PWRB",
            &[name("_HID", &EISAName::new("PNP0C0C")), name("_UID", &ZERO)],
        ),
        device(
            "GED0",
            &[
                name("_HID", &"ACPI0013"),
                name("_UID", &ZERO),
                resources(&[&interrupt]),
                Written::of(&event),
            ],
        ),
    ]
}
