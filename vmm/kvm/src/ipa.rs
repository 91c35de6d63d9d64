//! Addresses as the virtual machine hardware sees them.

use std::fmt;

use iommu::Gpa;
use iommu::addr::Address;

/// A full guest-physical address, with the shared bit where it is set: what a slot is keyed by and
/// what an exit reports. [`Gpa`] is the same without the shared bit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipa(u64);

impl Ipa {
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

    /// Where the shared alias of `gpa` is: with bit `shared_bit` set, or in place for `None`.
    #[must_use]
    pub const fn shared(gpa: Gpa, shared_bit: Option<u8>) -> Self {
        match shared_bit {
            Some(bit) => Self(gpa.raw() | 1 << bit),
            None => Self(gpa.raw()),
        }
    }
}

impl From<Gpa> for Ipa {
    /// Where the page is while it is private, or where shared pages have no alias.
    fn from(gpa: Gpa) -> Self {
        Self(gpa.raw())
    }
}

impl Address for Ipa {
    fn new(raw: u64) -> Self {
        Self(raw)
    }
    fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Ipa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ipa({:#x})", self.0)
    }
}

impl fmt::Display for Ipa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::LowerHex for Ipa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}
