//! The MSI capability: a message, and up to 32 vectors that vary its low data bits
//! (PCI Local Bus 3.0, 6.8.1).

use super::capability::{Capability, word};
use super::space::ConfigSpace;
use crate::irq::MsiMessage;

const ENABLE: u16 = 1 << 0;
const CAPABLE_SHIFT: u16 = 1;
const ENABLED_SHIFT: u16 = 4;
const COUNT_MASK: u16 = 0b111;
const WIDE: u16 = 1 << 7;
const MASKABLE: u16 = 1 << 8;
/// What of the control word a guest can change: enable and the number of vectors.
const CONTROL_WRITABLE: u16 = ENABLE | COUNT_MASK << ENABLED_SHIFT;

/// Where a function's MSI registers are and which of them it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiCapability {
    register: u16,
    wide: bool,
    maskable: bool,
    /// Logarithm of the number of vectors that the function can send: 0 to 5.
    capable: u16,
}

impl MsiCapability {
    /// Reads the capability at `capability` of a snapshot; `None` when it has no room.
    #[must_use]
    pub fn read_from(image: &[u8], capability: Capability<u8>) -> Option<Self> {
        let control = word(image, capability.register.checked_add(2)?)?;
        let msi = Self {
            register: capability.register,
            wide: control & WIDE != 0,
            maskable: control & MASKABLE != 0,
            capable: (control >> CAPABLE_SHIFT & COUNT_MASK).min(5),
        };
        (msi.bytes() <= capability.room).then_some(msi)
    }

    /// Bytes of the capability with its header.
    #[must_use]
    pub const fn bytes(&self) -> u16 {
        match (self.wide, self.maskable) {
            (false, false) => 10,
            (true, false) => 14,
            (false, true) => 20,
            (true, true) => 24,
        }
    }

    /// Puts the registers, as after reset, behind the header at the same place of `space`.
    pub fn install(&self, space: &mut ConfigSpace) {
        let flags = if self.wide { WIDE } else { 0 } | if self.maskable { MASKABLE } else { 0 };
        let control = flags | self.capable << CAPABLE_SHIFT;
        let writable = CONTROL_WRITABLE.to_le_bytes();
        space.emulate(self.control(), control.to_le_bytes(), writable);
        space.emulate(self.register + 4, [0; 4], [0xfc, 0xff, 0xff, 0xff]);
        if self.wide {
            space.emulate(self.register + 8, [0; 4], [0xff; 4]);
        }
        space.emulate(self.data(), [0; 2], [0xff; 2]);
        if let Some(mask) = self.mask() {
            let vectors = (1_u64 << (1_u32 << self.capable)) - 1;
            let [a, b, c, d, ..] = vectors.to_le_bytes();
            space.emulate(mask, [0; 4], [a, b, c, d]);
        }
    }

    /// Whether the guest has enabled the capability.
    #[must_use]
    pub fn is_enabled(&self, space: &ConfigSpace) -> bool {
        space.u16(self.control()) & ENABLE != 0
    }

    /// The message of each vector that the guest has allotted; `None` for a masked one.
    #[must_use]
    pub fn messages(&self, space: &ConfigSpace) -> Vec<Option<MsiMessage>> {
        let allotted = space.u16(self.control()) >> ENABLED_SHIFT & COUNT_MASK;
        let vectors = 1_u16 << allotted.min(self.capable);
        let high = if self.wide {
            space.u32(self.register + 8)
        } else {
            0
        };
        let address = u64::from(high) << 32 | u64::from(space.u32(self.register + 4));
        let data = space.u16(self.data()) & !(vectors - 1);
        let masked = self.mask().map_or(0, |mask| space.u32(mask));
        let message = |vector: u16| {
            let data = u32::from(data | vector);
            (masked >> vector & 1 == 0).then_some(MsiMessage { address, data })
        };
        (0..vectors).map(message).collect()
    }

    /// Where the pending bits are, if there are any.
    #[must_use]
    pub fn pending(&self) -> Option<u16> {
        self.mask().map(|mask| mask + 4)
    }

    fn control(&self) -> u16 {
        self.register + 2
    }

    fn data(&self) -> u16 {
        self.register + if self.wide { 12 } else { 8 }
    }

    fn mask(&self) -> Option<u16> {
        self.maskable.then_some(self.data() + 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(control: u16) -> Option<MsiCapability> {
        let mut image = vec![0; 256];
        image[0x52..0x54].copy_from_slice(&control.to_le_bytes());
        let capability = Capability {
            id: 5,
            register: 0x50,
            room: 24,
        };
        MsiCapability::read_from(&image, capability)
    }

    fn write(space: &mut ConfigSpace, register: u16, data: &[u8]) {
        space.write(register, data, |_, _| {});
    }

    #[test]
    fn vectors_vary_the_low_data_bits_and_masked_ones_have_no_message() {
        let msi = capability(0x0186).unwrap(); // 64-bit, maskable, 8 vectors
        let mut space = ConfigSpace::default();
        msi.install(&mut space);
        assert!(!msi.is_enabled(&space));
        write(
            &mut space,
            0x54,
            &[0x43, 0, 0x08, 0x08, 1, 0, 0, 0, 0x27, 0],
        );
        write(&mut space, 0x60, &[0b0010, 0xff, 0xff, 0xff]);
        write(&mut space, 0x52, &[0x21, 0xff]); // enable, 4 vectors
        assert!(msi.is_enabled(&space));
        let address = 0x1_0808_0040;
        let message = |data| Some(MsiMessage { address, data });
        let messages = msi.messages(&space);
        assert_eq!(
            messages,
            [message(0x24), None, message(0x26), message(0x27)]
        );
        assert_eq!(space.u16(0x52), 0x01a7);
        assert_eq!(space.u32(0x60), 0b0010);
    }

    #[test]
    fn a_guest_cannot_allot_more_vectors_than_there_are() {
        let msi = capability(0x0000).unwrap();
        let mut space = ConfigSpace::default();
        msi.install(&mut space);
        write(&mut space, 0x52, &[0x71, 0]);
        assert_eq!(msi.messages(&space).len(), 1);
    }

    #[test]
    fn a_capability_without_room_is_no_capability() {
        let mut image = vec![0; 256];
        image[0xf2..0xf4].copy_from_slice(&0x0180_u16.to_le_bytes());
        let capability = Capability {
            id: 5,
            register: 0xf0,
            room: 16,
        };
        assert_eq!(MsiCapability::read_from(&image, capability), None);
    }
}
