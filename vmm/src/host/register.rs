//! DMA widths that devices tell in a register of theirs: 64 bits or 32.
//!
//! A register cannot be read while a host driver has the device, so it is read once, when the device
//! has just been handed to VFIO, and noted. Quirks are not in it: see the planner's device table.

use vfio::{Backend, Function, RegionIndex, Sysfs};

use super::facts::DeviceFacts;
use super::roots::Roots;

/// The standard command register and its memory enable bit (PCI Local Bus 3.0, 6.2.2).
const COMMAND: u64 = 4;
const MEMORY_ENABLE: u8 = 1 << 1;

/// Where the devices of a class tell whether they drive 64 address bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WidthRegister {
    bar: u8,
    offset: u64,
    /// Any of these bits set means 64.
    mask: u32,
}

impl WidthRegister {
    const fn of(class: u32) -> Option<Self> {
        match class {
            // xHCI 1.2, 5.3.6: HCCPARAMS1.AC64.
            0x0c_0330 => Some(Self::new(0, 0x10, 1 << 0)),
            // AHCI 1.3.1, 3.1.1: CAP.S64A.
            0x01_0601 => Some(Self::new(5, 0, 1 << 31)),
            // SD Host Controller 4.20, 2.2.26: 64-bit system address, for version 3 and 4.
            0x08_0500 | 0x08_0501 => Some(Self::new(0, 0x40, 1 << 28 | 1 << 27)),
            // HD Audio 1.0a, 3.3.2: GCAP.64OK; the version registers share its 32 bits.
            0x04_0300 | 0x04_0380 => Some(Self::new(0, 0, 1 << 0)),
            _ => None,
        }
    }

    const fn new(bar: u8, offset: u64, mask: u32) -> Self {
        Self { bar, offset, mask }
    }

    const fn bits(self, value: u32) -> Option<u8> {
        match value {
            // A device that does not answer reads as ones.
            u32::MAX => None,
            value if value & self.mask != 0 => Some(64),
            _ => Some(32),
        }
    }
}

/// Reads the width of a device that is free on VFIO; `None` when it has no such register, or it
/// cannot be read: it is one source of several.
pub(super) fn read(roots: &Roots, device: &DeviceFacts) -> Option<u8> {
    let register = WidthRegister::of(device.class.0)?;
    let container = Backend::Type1.container().ok()?;
    let sysfs = Sysfs::new(roots.pci_device(device.pci));
    let function = Function::open(&container, &sysfs).ok()?;
    let mut command = [0; 2];
    function
        .read(RegionIndex::CONFIG, COMMAND, &mut command)
        .ok()?;
    command[0] |= MEMORY_ENABLE;
    // Closing the device resets it, so nothing of this stays.
    function
        .write(RegionIndex::CONFIG, COMMAND, &command)
        .ok()?;
    let mut value = [0; 4];
    let bar = RegionIndex::bar(register.bar)?;
    function.read(bar, register.offset, &mut value).ok()?;
    register.bits(u32::from_le_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_bit_means_64_and_a_clear_one_32() {
        let ahci = WidthRegister::of(0x01_0601).unwrap();
        assert_eq!(ahci.bits(0xc014_1f05), Some(64));
        assert_eq!(ahci.bits(0x4014_1f05), Some(32));
        let xhci = WidthRegister::of(0x0c_0330).unwrap();
        assert_eq!(xhci.bits(0x0008_7001), Some(64));
        assert_eq!(xhci.bits(0x0008_7000), Some(32));
    }

    #[test]
    fn a_device_that_does_not_answer_has_told_nothing() {
        let audio = WidthRegister::of(0x04_0300).unwrap();
        assert_eq!(audio.bits(u32::MAX), None);
    }

    #[test]
    fn other_classes_have_no_such_register() {
        for class in [0x02_0000, 0x01_0802, 0x01_0600, 0x0c_0320] {
            assert_eq!(WidthRegister::of(class), None, "{class:#x}");
        }
    }
}
