//! By which a kernel gets what it asks for of the PCI root: its slots (PCI Firmware 3.2, 4.5.1; ACPI 6.5,
//! 6.2.11).

use acpi_tables::aml::{
    Arg, CreateDWordField, Else, Equal, If, Method, Or, Path, Return, Uuid, ZERO,
};

use super::Written;

/// What `_OSC` of a PCI root is asked by.
const PCI_ROOT: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
/// First doubleword: nobody knows this UUID.
const UNKNOWN: u8 = 1 << 2;

/// The method: whatever is asked for is given, as it was asked for.
pub(super) fn control_of_slots() -> Written {
    let (uuid, capabilities) = (Arg(0), Arg(3));
    let status = Path::new("CDW1");
    let given = Return::new(&capabilities);
    let known = Uuid::new(PCI_ROOT);
    let is_known = Equal::new(&uuid, &known);
    let field = CreateDWordField::new(&status, &capabilities, &ZERO);
    let complain = Or::new(&status, &status, &UNKNOWN);
    Written::of(&Method::new(
        Path::new("_OSC"),
        4,
        false,
        vec![
            &If::new(&is_known, vec![&given]),
            &Else::new(vec![&field, &complain, &given]),
        ],
    ))
}
