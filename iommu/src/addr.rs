//! Addresses of the two spaces that meet in a DMA table, and page ranges in them.
//!
//! A [`Gpa`] and an [`Iova`] are numbers of different spaces: adding one to the other, or passing
//! one for the other, does not compile.

use std::fmt;

/// Bytes in the smallest unit that KVM, VFIO and the RMM convert or map: 4 KiB.
pub const PAGE_SIZE: u64 = 4096;

/// An address space whose addresses are plain `u64` numbers.
pub trait Address: Copy + Ord + fmt::Debug + fmt::LowerHex {
    /// The address with this number.
    fn new(raw: u64) -> Self;
    /// The number of this address.
    fn raw(self) -> u64;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The number of this address.
            #[must_use]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// The address `bytes` above this one, or `None` when that leaves 64 bits.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// Bytes from `base` up to this address, or `None` when `base` lies above it.
            #[must_use]
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }

            /// Whether this is the first byte of a 4 KiB page.
            #[must_use]
            pub const fn is_page_aligned(self) -> bool {
                self.0 % PAGE_SIZE == 0
            }
        }

        impl Address for $name {
            fn new(raw: u64) -> Self {
                Self(raw)
            }
            fn raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A guest-physical address (Arm: IPA) without the shared bit: the name of a page, whatever its
    /// state.
    Gpa
);
address!(
    /// A guest-physical address as the guest and its devices write it: the [`Gpa`] of a page, with the
    /// shared bit set when it names the page's shared alias. Where sharing is in place it equals the
    /// [`Gpa`].
    Ipa
);
address!(
    /// An address as a device puts it on the bus, translated by the IOMMU.
    Iova
);

/// Why a pair of numbers is not a page range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The range has no page.
    #[error("range at {start:#x} is empty")]
    Empty {
        /// First byte.
        start: u64,
    },
    /// A bound is not a multiple of [`PAGE_SIZE`].
    #[error("range {start:#x}+{bytes:#x} is not made of whole 4 KiB pages")]
    Misaligned {
        /// First byte.
        start: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// The end does not fit in 64 bits.
    #[error("range {start:#x}+{bytes:#x} runs past the end of the address space")]
    Overflow {
        /// First byte.
        start: u64,
        /// Length in bytes.
        bytes: u64,
    },
}

/// A non-empty, page-aligned, half-open range of addresses that cannot overflow.
///
/// The end is at most `2^64 - 4096`, so that it is an address too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange<A> {
    start: A,
    end: A,
}

impl<A: Address> PageRange<A> {
    /// The range of `bytes` bytes from `start`.
    ///
    /// # Errors
    /// When it is empty, misaligned, or ends beyond 64 bits.
    pub fn new(start: A, bytes: u64) -> Result<Self, RangeError> {
        let raw = start.raw();
        if bytes == 0 {
            return Err(RangeError::Empty { start: raw });
        }
        if !raw.is_multiple_of(PAGE_SIZE) || !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(RangeError::Misaligned { start: raw, bytes });
        }
        let end = raw
            .checked_add(bytes)
            .ok_or(RangeError::Overflow { start: raw, bytes })?;
        Ok(Self {
            start,
            end: A::new(end),
        })
    }

    /// The range between two page addresses that are already known to be in order.
    pub(crate) fn between(start: A, end: A) -> Self {
        debug_assert!(start < end, "{start:#x}..{end:#x} is empty");
        Self { start, end }
    }

    /// Every page that a range can hold.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            start: A::new(0),
            end: A::new(u64::MAX - (PAGE_SIZE - 1)),
        }
    }

    /// The range of the same length from `start` in another space, or `None` when it leaves 64 bits.
    #[must_use]
    pub fn rebased<B: Address>(self, start: B) -> Option<PageRange<B>> {
        PageRange::new(start, self.bytes()).ok()
    }

    /// The range from `start` up to, not including, `end`.
    ///
    /// # Errors
    /// As [`PageRange::new`]; an `end` below `start` counts as empty.
    pub fn from_bounds(start: A, end: A) -> Result<Self, RangeError> {
        Self::new(start, end.raw().saturating_sub(start.raw()))
    }

    /// First byte.
    #[must_use]
    pub fn start(self) -> A {
        self.start
    }

    /// First byte beyond the range.
    #[must_use]
    pub fn end(self) -> A {
        self.end
    }

    /// Last byte of the range.
    #[must_use]
    pub fn last(self) -> A {
        A::new(self.end.raw().saturating_sub(1))
    }

    /// Length in bytes: a multiple of [`PAGE_SIZE`], never zero.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.end.raw().saturating_sub(self.start.raw())
    }

    /// Length in 4 KiB pages, never zero.
    #[must_use]
    pub fn pages(self) -> u64 {
        self.bytes() / PAGE_SIZE
    }

    /// Binary logarithm of the length in pages, rounded down.
    pub(crate) fn size_class(self) -> u32 {
        self.pages().checked_ilog2().unwrap_or(0)
    }

    /// Bytes that no range of this size class exceeds.
    pub(crate) fn longest_in_class(class: u32) -> u64 {
        let pages = 2_u64.checked_shl(class).unwrap_or(u64::MAX);
        pages.saturating_mul(PAGE_SIZE)
    }

    /// Whether the byte at `address` is in the range.
    #[must_use]
    pub fn contains(self, address: A) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether every page of `other` is in the range.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The pages that are in both, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }

    /// Whether a page is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }
}

impl<A: Address> fmt::Debug for PageRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<A: Address> fmt::Display for PageRange<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_made_of_whole_pages_and_never_overflows() {
        let gpa = Gpa::new(0x1000);
        assert!(PageRange::new(gpa, 0x2000).is_ok());
        assert_eq!(
            PageRange::new(gpa, 0),
            Err(RangeError::Empty { start: 0x1000 })
        );
        assert!(matches!(
            PageRange::new(gpa, 0x800),
            Err(RangeError::Misaligned { .. })
        ));
        assert!(matches!(
            PageRange::new(Gpa::new(8), 0x1000),
            Err(RangeError::Misaligned { .. })
        ));
        let top = Gpa::new(u64::MAX - 0xfff);
        assert!(matches!(
            PageRange::new(top, 0x1000),
            Err(RangeError::Overflow { .. })
        ));
    }

    #[test]
    fn an_end_below_the_start_is_an_empty_range() {
        let range = PageRange::from_bounds(Iova::new(0x2000), Iova::new(0x1000));
        assert!(matches!(range, Err(RangeError::Empty { .. })));
    }

    #[test]
    fn ranges_that_only_touch_do_not_overlap() {
        let low = PageRange::new(Gpa::new(0), 0x1000).unwrap();
        let high = PageRange::new(Gpa::new(0x1000), 0x1000).unwrap();
        assert!(!low.overlaps(high));
        assert!(!low.contains(high.start()));
        assert_eq!(low.last(), Gpa::new(0xfff));
    }
}
