//! The two capability lists of a function: standard (from 0x40) and extended (from 0x100).

use super::registers::{CAPABILITIES, EXTENDED, HEADER_END, STATUS, STATUS_CAPABILITIES};

/// Power management (PCI Power Management 1.2, 3.2).
pub const POWER_MANAGEMENT: u8 = 0x01;
/// Vital product data.
pub const VITAL_PRODUCT_DATA: u8 = 0x03;
/// Message-signalled interrupts.
pub const MSI: u8 = 0x05;
/// Vendor-specific.
pub const VENDOR: u8 = 0x09;
/// Subsystem ids of a bridge.
pub const SUBSYSTEM: u8 = 0x0d;
/// PCI Express.
pub const EXPRESS: u8 = 0x10;
/// Message-signalled interrupts, extended.
pub const MSIX: u8 = 0x11;
/// SATA index and data registers (AHCI 1.3, 2.4).
pub const SATA: u8 = 0x12;
/// Advanced features of conventional PCI: function-level reset.
pub const ADVANCED_FEATURES: u8 = 0x13;

/// Extended: device serial number.
pub const SERIAL_NUMBER: u16 = 0x0003;
/// Extended: vendor-specific.
pub const EXTENDED_VENDOR: u16 = 0x000b;
/// Extended: designated vendor-specific.
pub const DESIGNATED_VENDOR: u16 = 0x0023;

/// A capability in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability<Id> {
    /// What it is.
    pub id: Id,
    /// Offset of its header in configuration space.
    pub register: u16,
    /// Bytes up to the next higher capability, or to the end of its half of the space.
    pub room: u16,
}

/// The standard capabilities in `image`, a snapshot of configuration space, in list order.
///
/// A list that loops or leaves the space ends there: devices are not trusted to be sane.
#[must_use]
pub fn standard(image: &[u8]) -> Vec<Capability<u8>> {
    let listed = word(image, STATUS).is_some_and(|status| status & STATUS_CAPABILITIES != 0);
    let mut found = Vec::new();
    let mut at = byte(image, CAPABILITIES).filter(|_| listed);
    while let Some(pointer) = at {
        let register = u16::from(pointer & !3);
        if register < HEADER_END || is_listed(&found, register) {
            break;
        }
        let Some(id) = byte(image, register).filter(|&id| id != 0xff) else {
            break;
        };
        found.push(Capability {
            id,
            register,
            room: 0,
        });
        at = byte(image, register + 1);
    }
    measure(&mut found, EXTENDED);
    found
}

/// The extended capabilities in `image`, in list order; none when it is 256 bytes long.
#[must_use]
pub fn extended(image: &[u8]) -> Vec<Capability<u16>> {
    let mut found = Vec::new();
    let mut register = EXTENDED;
    while let Some(header) = dword(image, register) {
        let id = word(image, register).unwrap_or_default();
        if header == 0 || id == 0xffff || is_listed(&found, register) {
            break;
        }
        found.push(Capability {
            id,
            register,
            room: 0,
        });
        let next = word(image, register + 2).unwrap_or_default() >> 4 & !3;
        if next < EXTENDED {
            break;
        }
        register = next;
    }
    measure(&mut found, super::CONFIG_BYTES);
    found
}

fn is_listed<Id>(found: &[Capability<Id>], register: u16) -> bool {
    found
        .iter()
        .any(|capability| capability.register == register)
}

fn measure<Id>(found: &mut [Capability<Id>], end: u16) {
    let starts: Vec<u16> = found.iter().map(|capability| capability.register).collect();
    for capability in found {
        let above = starts.iter().filter(|&&start| start > capability.register);
        let limit = above.min().copied().unwrap_or(end);
        capability.room = limit.saturating_sub(capability.register);
    }
}

/// The byte at `register` of a snapshot.
#[must_use]
pub fn byte(image: &[u8], register: u16) -> Option<u8> {
    image.get(usize::from(register)).copied()
}

/// The two bytes at `register` of a snapshot.
#[must_use]
pub fn word(image: &[u8], register: u16) -> Option<u16> {
    let bytes = image.get(usize::from(register)..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

/// The four bytes at `register` of a snapshot.
#[must_use]
pub fn dword(image: &[u8], register: u16) -> Option<u32> {
    let bytes = image.get(usize::from(register)..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(bytes: &[(usize, u8)]) -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[6] = 0x10;
        for &(at, value) in bytes {
            image[at] = value;
        }
        image
    }

    #[test]
    fn capabilities_come_in_list_order_with_the_room_that_they_have() {
        let image = image(&[(0x34, 0x80), (0x80, 5), (0x81, 0x42), (0x40, 1)]);
        let found = standard(&image);
        let ids: Vec<_> = found.iter().map(|c| (c.id, c.register, c.room)).collect();
        assert_eq!(ids, [(5, 0x80, 0x80), (1, 0x40, 0x40)]);
    }

    #[test]
    fn without_the_status_bit_there_is_no_list() {
        let mut image = image(&[(0x34, 0x40), (0x40, 1)]);
        image[6] = 0;
        assert_eq!(standard(&image), []);
    }

    #[test]
    fn a_list_that_loops_ends_where_it_meets_itself() {
        let image = image(&[
            (0x34, 0x40),
            (0x40, 1),
            (0x41, 0x50),
            (0x50, 5),
            (0x51, 0x40),
        ]);
        assert_eq!(standard(&image).len(), 2);
    }

    #[test]
    fn extended_capabilities_are_found_and_absent_in_a_short_space() {
        let mut image = image(&[]);
        image[0x100..0x104].copy_from_slice(&0x1401_0003_u32.to_le_bytes());
        image[0x140..0x144].copy_from_slice(&0x0001_0010_u32.to_le_bytes());
        let ids: Vec<_> = extended(&image).iter().map(|c| (c.id, c.room)).collect();
        assert_eq!(ids, [(3, 0x40), (0x10, 0xec0)]);
        assert_eq!(extended(&image[..256]), []);
    }

    proptest! {
        #[test]
        fn any_image_has_a_finite_list(image in prop::collection::vec(any::<u8>(), 0..4097)) {
            prop_assert!(standard(&image).len() <= 48);
            prop_assert!(extended(&image).len() <= 960);
        }
    }
}
