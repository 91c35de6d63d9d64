//! The MSI-X capability and its table, which are kept here: the device's own table is the host's
//! (PCI Local Bus 3.0, 6.8.2).

use super::bar::BarIndex;
use super::capability::{Capability, dword, word};
use super::space::ConfigSpace;
use crate::irq::MsiMessage;

const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
const SIZE_MASK: u16 = 0x7ff;
const BAR_MASK: u32 = 0b111;

/// Bytes of a table entry: address, upper address, data, vector control.
const ENTRY_BYTES: usize = 16;
/// The bit of vector control that masks the vector; the others are reserved.
const VECTOR_MASKED: u32 = 1;

/// Bytes of a BAR that hold the vector table or the pending bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLocation {
    /// Which BAR.
    pub bar: BarIndex,
    /// First byte, a multiple of 8.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl TableLocation {
    /// The offset into the table of an access to a BAR that lies wholly in the table.
    #[must_use]
    pub fn locate(&self, bar: BarIndex, offset: u64, bytes: u64) -> Option<u64> {
        let within = offset.checked_sub(self.offset)?;
        let end = within.checked_add(bytes)?;
        (bar == self.bar && end <= self.bytes).then_some(within)
    }

    /// Whether an access to a BAR touches the table.
    #[must_use]
    pub fn touches(&self, bar: BarIndex, offset: u64, bytes: u64) -> bool {
        bar == self.bar
            && offset < self.offset.saturating_add(self.bytes)
            && self.offset < offset.saturating_add(bytes)
    }
}

/// Where a function's MSI-X registers and tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsixCapability {
    register: u16,
    vectors: u16,
    table: TableLocation,
    pending: TableLocation,
}

impl MsixCapability {
    /// Bytes of the capability with its header.
    pub const BYTES: u16 = 12;

    /// Reads the capability at `capability` of a snapshot; `None` when it has no room or names a
    /// BAR that does not exist.
    #[must_use]
    pub fn read_from(image: &[u8], capability: Capability<u8>) -> Option<Self> {
        if capability.room < Self::BYTES {
            return None;
        }
        let register = capability.register;
        let vectors = (word(image, register.checked_add(2)?)? & SIZE_MASK) + 1;
        let location = |register, bytes| {
            let value = dword(image, register)?;
            Some(TableLocation {
                bar: BarIndex::new(u8::try_from(value & BAR_MASK).ok()?)?,
                offset: u64::from(value & !BAR_MASK),
                bytes,
            })
        };
        Some(Self {
            register,
            vectors,
            table: location(
                register.checked_add(4)?,
                u64::from(vectors) * ENTRY_BYTES as u64,
            )?,
            pending: location(
                register.checked_add(8)?,
                u64::from(vectors).div_ceil(64) * 8,
            )?,
        })
    }

    /// The capability of an emulated function, whose header is at `register`: `table` and `pending` are
    /// where its tables begin. `None` without a vector, or with more than 2048.
    #[must_use]
    pub fn new(
        register: u16,
        vectors: u16,
        (table, pending): ((BarIndex, u32), (BarIndex, u32)),
    ) -> Option<Self> {
        if vectors == 0 || vectors > SIZE_MASK + 1 {
            return None;
        }
        let location = |(bar, offset): (BarIndex, u32), bytes| TableLocation {
            bar,
            offset: u64::from(offset & !BAR_MASK),
            bytes,
        };
        Some(Self {
            register,
            vectors,
            table: location(table, u64::from(vectors) * ENTRY_BYTES as u64),
            pending: location(pending, u64::from(vectors).div_ceil(64) * 8),
        })
    }

    /// How many vectors the function has: 1 to 2048.
    #[must_use]
    pub const fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Where the vector table is.
    #[must_use]
    pub const fn table(&self) -> TableLocation {
        self.table
    }

    /// Where the pending bits are.
    #[must_use]
    pub const fn pending(&self) -> TableLocation {
        self.pending
    }

    /// Puts the registers, as after reset, behind the header at the same place of `space`.
    pub fn install(&self, space: &mut ConfigSpace) {
        let control = (self.vectors - 1) & SIZE_MASK;
        let writable = (ENABLE | MASK_ALL).to_le_bytes();
        space.emulate(self.register + 2, control.to_le_bytes(), writable);
        for (at, location) in [(4, self.table), (8, self.pending)] {
            // Read from these 32 bits, so they hold it.
            let offset = u32::try_from(location.offset).unwrap_or_default();
            let value = offset | u32::from(location.bar.number());
            space.emulate(self.register + at, value.to_le_bytes(), [0; 4]);
        }
    }

    /// Message control as the guest reads it.
    #[must_use]
    pub fn control(&self, space: &ConfigSpace) -> u16 {
        space.u16(self.register + 2)
    }

    /// Whether the guest has enabled the capability.
    #[must_use]
    pub fn is_enabled(&self, space: &ConfigSpace) -> bool {
        space.u16(self.register + 2) & ENABLE != 0
    }

    /// Whether the guest has masked all vectors at once.
    #[must_use]
    pub fn is_masked(&self, space: &ConfigSpace) -> bool {
        space.u16(self.register + 2) & MASK_ALL != 0
    }
}

/// One vector as the guest has programmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

impl Entry {
    /// As after reset: masked.
    const RESET: Self = Self {
        address: 0,
        data: 0,
        control: VECTOR_MASKED,
    };

    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let [a, b, c, d, e, f, g, h] = self.address.to_le_bytes();
        let [i, j, k, l] = self.data.to_le_bytes();
        let [m, n, o, p] = self.control.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]) & !3,
            data: u32::from_le_bytes([i, j, k, l]),
            control: u32::from_le_bytes([m, n, o, p]) & VECTOR_MASKED,
        }
    }
}

/// The vector table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsixTable {
    entries: Vec<Entry>,
}

impl MsixTable {
    /// A table as after reset: every vector masked.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        Self {
            entries: vec![Entry::RESET; usize::from(vectors)],
        }
    }

    /// Fills `data` from byte `offset` of the table; zeros beyond its end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.entries.iter().flat_map(|entry| entry.to_bytes());
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        data.fill(0);
        for (data, byte) in data.iter_mut().zip(bytes.skip(from)) {
            *data = byte;
        }
    }

    /// Writes `data` from byte `offset` of the table on; reserved bits stay zero.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let touched = data.len() / ENTRY_BYTES + 2;
        let entries = self.entries.iter_mut().enumerate();
        for (index, entry) in entries.skip(from / ENTRY_BYTES).take(touched) {
            let start = index * ENTRY_BYTES;
            let mut bytes = entry.to_bytes();
            for (at, byte) in (start..).zip(&mut bytes) {
                let new = at.checked_sub(from).and_then(|at| data.get(at));
                *byte = new.copied().unwrap_or(*byte);
            }
            *entry = Entry::from_bytes(bytes);
        }
    }

    /// The message of each vector up to the last that the guest has programmed, at least one;
    /// `None` for a masked one.
    ///
    /// Linux programs every vector that it will use before it unmasks the first, so that this is
    /// how many the device needs.
    #[must_use]
    pub fn messages(&self) -> Vec<Option<MsiMessage>> {
        let used = self
            .entries
            .iter()
            .rposition(|entry| *entry != Entry::RESET);
        let used = used.map_or(1, |last| last + 1);
        let message = |entry: &Entry| {
            (entry.control & VECTOR_MASKED == 0).then_some(MsiMessage {
                address: entry.address,
                data: entry.data,
            })
        };
        self.entries.iter().take(used).map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 256];
        image[0x42..0x44].copy_from_slice(&64_u16.to_le_bytes()); // 65 vectors
        image[0x44..0x48].copy_from_slice(&0x2000_u32.to_le_bytes());
        image[0x48..0x4c].copy_from_slice(&0x3004_u32.to_le_bytes());
        image
    }

    const AT: Capability<u8> = Capability {
        id: 0x11,
        register: 0x40,
        room: 12,
    };

    #[test]
    fn tables_are_where_the_capability_says() {
        let msix = MsixCapability::read_from(&image(), AT).unwrap();
        assert_eq!(msix.vectors(), 65);
        let (table, pending) = (msix.table(), msix.pending());
        assert_eq!(
            (table.bar.number(), table.offset, table.bytes),
            (0, 0x2000, 65 * 16)
        );
        assert_eq!(
            (pending.bar.number(), pending.offset, pending.bytes),
            (4, 0x3000, 16)
        );
        assert_eq!(table.locate(table.bar, 0x2010, 8), Some(0x10));
        assert_eq!(table.locate(table.bar, 0x240c, 8), None);
        assert!(table.touches(table.bar, 0x240c, 8));
        assert!(!table.touches(pending.bar, 0x2010, 4));
    }

    #[test]
    fn a_table_in_a_bar_that_does_not_exist_is_no_capability() {
        let mut image = image();
        image[0x44] = 6;
        assert_eq!(MsixCapability::read_from(&image, AT), None);
    }

    #[test]
    fn only_enable_and_mask_of_the_control_word_can_be_written() {
        let msix = MsixCapability::read_from(&image(), AT).unwrap();
        let mut space = ConfigSpace::default();
        msix.install(&mut space);
        space.write(0x40, &[0xff; 12], |_, _| {});
        assert_eq!(space.u16(0x42), 0xc040);
        assert_eq!(space.u32(0x44), 0x2000);
        assert_eq!(space.u32(0x48), 0x3004);
        assert!(msix.is_enabled(&space) && msix.is_masked(&space));
    }

    #[test]
    fn vectors_start_masked_and_have_a_message_once_unmasked() {
        let mut table = MsixTable::new(4);
        assert_eq!(table.messages(), [None]);
        table.write(0x10, &0x1_0808_0043_u64.to_le_bytes());
        table.write(0x18, &5_u32.to_le_bytes());
        assert_eq!(table.messages(), [None, None]);
        table.write(0x1c, &0xffff_fffe_u32.to_le_bytes());
        let message = MsiMessage {
            address: 0x1_0808_0040,
            data: 5,
        };
        assert_eq!(table.messages(), [None, Some(message)]);
        let mut data = [0; 16];
        table.read(0x10, &mut data);
        assert_eq!(data, [0x40, 0, 8, 8, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn accesses_beyond_the_table_have_no_effect() {
        let mut table = MsixTable::new(1);
        table.write(0x0c, &[0; 16]);
        table.write(u64::MAX, &[0; 1]);
        let mut data = [0xff; 4];
        table.read(0x10, &mut data);
        assert_eq!(data, [0; 4]);
        table.read(u64::MAX, &mut data);
        assert_eq!(data, [0; 4]);
    }
}
