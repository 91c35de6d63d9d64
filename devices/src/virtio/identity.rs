//! What a virtio function is, in its configuration space.

use super::device::VirtioDevice;
use crate::pci::ConfigSpace;
use crate::pci::registers::{
    COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_MEMORY, INTERRUPT_LINE, REVISION_ID,
    SUBSYSTEM_VENDOR_ID, VENDOR_ID,
};

/// The vendor of all virtio functions.
const VENDOR: u16 = 0x1af4;
/// What is added to a device id.
const FIRST_DEVICE: u16 = 0x1040;
const REVISION: u8 = 1;

/// Configuration space with what a function of device `D` is.
pub(super) fn identity<D: VirtioDevice>() -> ConfigSpace {
    let mut space = ConfigSpace::default();
    let [vendor_low, vendor_high] = VENDOR.to_le_bytes();
    let [device_low, device_high] = (FIRST_DEVICE + D::ID).to_le_bytes();
    let ids = [vendor_low, vendor_high, device_low, device_high];
    space.emulate(VENDOR_ID, ids, [0; 4]);
    space.emulate(SUBSYSTEM_VENDOR_ID, ids, [0; 4]);
    let [base, sub, interface] = D::CLASS;
    space.emulate(REVISION_ID, [REVISION, interface, sub, base], [0; 4]);
    let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
    space.emulate(COMMAND, [0; 2], command.to_le_bytes());
    space.emulate(INTERRUPT_LINE, [0], [0xff]);
    space
}
