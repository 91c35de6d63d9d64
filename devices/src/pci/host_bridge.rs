//! The host bridge at 00:00.0: there because software expects one; it does nothing.

use super::bar::{AddressSpace, BarIndex};
use super::registers::{INTERRUPT_LINE, REVISION_ID, VENDOR_ID};
use super::root::PciFunction;
use super::space::ConfigSpace;

/// Red Hat's generic PCI Express host bridge, for which guests have neither driver nor quirk.
const IDS: [u8; 4] = [0x36, 0x1b, 0x08, 0x00];
/// Revision 0, bridge device, host bridge.
const REVISION_AND_CLASS: [u8; 4] = [0x00, 0x00, 0x00, 0x06];

/// A function with an identity and no behaviour.
pub struct HostBridge(ConfigSpace);

impl Default for HostBridge {
    fn default() -> Self {
        let mut space = ConfigSpace::default();
        space.emulate(VENDOR_ID, IDS, [0; 4]);
        space.emulate(REVISION_ID, REVISION_AND_CLASS, [0; 4]);
        space.emulate(INTERRUPT_LINE, [0], [0xff]);
        Self(space)
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, register: u16, data: &mut [u8]) {
        self.0.read(register, data, |_, _| {});
    }

    fn config_write(&mut self, register: u16, data: &[u8]) {
        self.0.write(register, data, |_, _| {});
    }

    fn claims(&self, _: AddressSpace, _: u64, _: u64) -> Option<(BarIndex, u64)> {
        None
    }

    fn bar_read(&mut self, _: BarIndex, _: u64, _: &mut [u8]) {}

    fn bar_write(&mut self, _: BarIndex, _: u64, _: &[u8]) {}
}
