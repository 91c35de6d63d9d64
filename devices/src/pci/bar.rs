//! Base address registers: what they decode, how big it is, and where the guest has put it.

use std::fmt;

use super::registers::BAR0;
use super::space::ConfigSpace;

/// Low bits of a base address register (PCI Local Bus 3.0, 6.2.5.1).
const SPACE_IO: u32 = 1 << 0;
const TYPE_64: u32 = 0b10 << 1;
const TYPE_MASK: u32 = 0b11 << 1;
const PREFETCHABLE: u32 = 1 << 3;

/// Which base address register: 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarIndex(u8);

impl BarIndex {
    /// All six.
    pub const ALL: [Self; 6] = [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// The register with this number, or `None` beyond 5.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number > 5 {
            return None;
        }
        Some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its offset in configuration space.
    #[must_use]
    pub const fn register(self) -> u16 {
        BAR0 + 4 * self.0 as u16
    }

    /// The register after this one, which holds the upper half of a 64-bit address.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

impl fmt::Display for BarIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BAR {}", self.0)
    }
}

/// What addresses a register decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSpace {
    /// Memory; its addresses are guest-physical ones.
    Memory,
    /// I/O ports.
    Io,
}

/// What a register decodes, and how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes the next register too.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// I/O ports.
    Io,
}

impl BarKind {
    /// The kind that a register's low bits tell of.
    #[must_use]
    pub const fn of_register(value: u32) -> Self {
        let prefetchable = value & PREFETCHABLE != 0;
        if value & SPACE_IO != 0 {
            Self::Io
        } else if value & TYPE_MASK == TYPE_64 {
            Self::Memory64 { prefetchable }
        } else {
            Self::Memory32 { prefetchable }
        }
    }

    const fn low_bits(self) -> u32 {
        match self {
            Self::Io => SPACE_IO,
            Self::Memory32 { prefetchable } => prefetchable as u32 * PREFETCHABLE,
            Self::Memory64 { prefetchable } => TYPE_64 | (prefetchable as u32 * PREFETCHABLE),
        }
    }

    /// The smallest size that the register's fixed bits leave room for.
    const fn smallest(self) -> u64 {
        match self {
            Self::Io => 4,
            Self::Memory32 { .. } | Self::Memory64 { .. } => 16,
        }
    }

    const fn largest(self) -> u64 {
        match self {
            Self::Io | Self::Memory32 { .. } => 1 << 31,
            Self::Memory64 { .. } => 1 << 62,
        }
    }
}

/// Why a register cannot be shown to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BarError {
    /// No register decodes such a size.
    #[error("{index} of {size:#x} bytes: not a power of two, or out of range for {kind:?}")]
    Size {
        /// Which.
        index: BarIndex,
        /// Its kind.
        kind: BarKind,
        /// Its size.
        size: u64,
    },
    /// A 64-bit register needs a second one.
    #[error("{0} is 64 bits wide and the last")]
    NoUpperHalf(BarIndex),
}

/// A base address register that decodes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    index: BarIndex,
    kind: BarKind,
    size: u64,
}

impl Bar {
    /// The register `index` that decodes `size` bytes.
    ///
    /// # Errors
    /// When no register of this kind decodes such a size, or a 64-bit one is the last.
    pub fn new(index: BarIndex, kind: BarKind, size: u64) -> Result<Self, BarError> {
        if !size.is_power_of_two() || size < kind.smallest() || size > kind.largest() {
            return Err(BarError::Size { index, kind, size });
        }
        if matches!(kind, BarKind::Memory64 { .. }) && index.next().is_none() {
            return Err(BarError::NoUpperHalf(index));
        }
        Ok(Self { index, kind, size })
    }

    /// Which register.
    #[must_use]
    pub const fn index(&self) -> BarIndex {
        self.index
    }

    /// What it decodes.
    #[must_use]
    pub const fn kind(&self) -> BarKind {
        self.kind
    }

    /// How many bytes it decodes: a power of two.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The address space that it decodes in.
    #[must_use]
    pub const fn space(&self) -> AddressSpace {
        match self.kind {
            BarKind::Io => AddressSpace::Io,
            BarKind::Memory32 { .. } | BarKind::Memory64 { .. } => AddressSpace::Memory,
        }
    }

    /// Puts the register, at address 0, into `space`. The guest can change the address bits only,
    /// which is how it learns the size: it writes ones and reads back which of them stuck.
    pub fn install(&self, space: &mut ConfigSpace) {
        let address_bits = !(self.size - 1);
        let [a, b, c, d, upper @ ..] = address_bits.to_le_bytes();
        let low_bits = self.kind.low_bits().to_le_bytes();
        space.emulate(self.index.register(), low_bits, [a, b, c, d]);
        if let (BarKind::Memory64 { .. }, Some(next)) = (self.kind, self.index.next()) {
            space.emulate(next.register(), [0; 4], upper);
        }
    }

    /// The address that the guest has programmed.
    #[must_use]
    pub fn address(&self, space: &ConfigSpace) -> u64 {
        let low = space.u32(self.index.register()) & !self.kind.low_bits();
        let high = match (self.kind, self.index.next()) {
            (BarKind::Memory64 { .. }, Some(next)) => space.u32(next.register()),
            _ => 0,
        };
        u64::from(high) << 32 | u64::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY64: BarKind = BarKind::Memory64 { prefetchable: true };

    fn bar(number: u8, kind: BarKind, size: u64) -> Bar {
        Bar::new(BarIndex::new(number).unwrap(), kind, size).unwrap()
    }

    fn write(space: &mut ConfigSpace, number: u8, value: u32) {
        let register = BarIndex::new(number).unwrap().register();
        space.write(register, &value.to_le_bytes(), |_, _| {});
    }

    #[test]
    fn writing_ones_shows_the_size_and_the_type_bits_stay() {
        let mut space = ConfigSpace::default();
        bar(
            0,
            BarKind::Memory32 {
                prefetchable: false,
            },
            0x2_0000,
        )
        .install(&mut space);
        bar(1, BarKind::Io, 0x40).install(&mut space);
        bar(2, MEMORY64, 0x2_0000_0000).install(&mut space);
        for number in 0..6 {
            write(&mut space, number, u32::MAX);
        }
        let registers: Vec<u32> = (0..6).map(|n| space.u32(0x10 + 4 * n)).collect();
        let expected = [0xfffe_0000, 0xffff_ffc1, 0x0000_000c, 0xffff_fffe, 0, 0];
        assert_eq!(registers, expected);
    }

    #[test]
    fn the_address_is_that_of_both_halves() {
        let mut space = ConfigSpace::default();
        let wide = bar(4, MEMORY64, 0x4000);
        wide.install(&mut space);
        write(&mut space, 4, 0x8000_4fff);
        write(&mut space, 5, 0x12);
        assert_eq!(wide.address(&space), 0x12_8000_4000);
        let ports = bar(0, BarKind::Io, 8);
        ports.install(&mut space);
        write(&mut space, 0, 0x1009);
        assert_eq!(ports.address(&space), 0x1008);
    }

    #[test]
    fn sizes_that_no_register_decodes_are_refused() {
        let index = BarIndex::new(5).unwrap();
        let kind = BarKind::Memory32 {
            prefetchable: false,
        };
        for size in [0, 8, 0x3000, 1 << 32] {
            assert!(Bar::new(index, kind, size).is_err(), "{size:#x}");
        }
        assert_eq!(
            Bar::new(index, MEMORY64, 0x1000),
            Err(BarError::NoUpperHalf(index))
        );
    }

    #[test]
    fn the_kind_is_told_by_the_low_bits() {
        for kind in [
            BarKind::Io,
            BarKind::Memory32 {
                prefetchable: false,
            },
            BarKind::Memory32 { prefetchable: true },
            BarKind::Memory64 {
                prefetchable: false,
            },
            MEMORY64,
        ] {
            assert_eq!(BarKind::of_register(kind.low_bits() | 0xfff0_0000), kind);
        }
    }
}
