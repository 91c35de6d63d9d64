//! `KVM_HC_MAP_GPA_RANGE`: a guest says which of its pages are private, by a call that KVM hands on
//! (`Documentation/virt/kvm/x86/hypercalls.rst` of Linux).
//!
//! ```text
//!   rbx   first guest-physical address
//!   rcx   number of 4 KiB pages
//!   rdx   bits 3:0    largest page that the guest would like, a hint: not used
//!         bit 4       private (encrypted)
//!         bits 63:5   zero
//!   rax   0, or minus an error number
//! ```
//! The call is carried out as a whole before the guest goes on: the pages leave the DMA tables that lose
//! them first, and reach the tables that gain them last. A guest that is told 0 has what it asked for.

use iommu::{Gpa, PAGE_SIZE, PageRange, Visibility};

use crate::convert::Pages;

/// The call makes no sense: `KVM_EINVAL`.
pub const INVALID: i64 = -22;
/// The host could not follow: `KVM_EFAULT`. Some of the pages may have been converted; asking again is
/// right for a guest that can wait.
pub const FAILED: i64 = -14;

/// What a guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The pages.
    pub range: PageRange<Gpa>,
    /// What they are to be.
    pub to: Visibility,
}

/// The arguments make no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the arguments of KVM_HC_MAP_GPA_RANGE make no sense")]
pub struct Malformed;

impl Request {
    /// Reads the arguments of a call.
    ///
    /// # Errors
    /// When they name no whole pages, pages beyond all addresses, or an attribute that there is not.
    pub fn parse([address, pages, attributes, _]: [u64; 4]) -> Result<Self, Malformed> {
        const PAGE_SIZE_HINT: u64 = 0xf;
        const PRIVATE: u64 = 1 << 4;
        if attributes & !(PAGE_SIZE_HINT | PRIVATE) != 0 {
            return Err(Malformed);
        }
        let bytes = pages.checked_mul(PAGE_SIZE).ok_or(Malformed)?;
        let range = PageRange::new(Gpa::new(address), bytes).map_err(|_| Malformed)?;
        let to = match attributes & PRIVATE {
            0 => Visibility::Shared,
            _ => Visibility::Private,
        };
        Ok(Self { range, to })
    }
}

/// Does what the call asks for. Returns what the guest finds in rax.
#[must_use]
pub fn answer(pages: &Pages, arguments: [u64; 4]) -> i64 {
    let Ok(Request { range, to }) = Request::parse(arguments) else {
        return INVALID;
    };
    // Of a range that is not all memory nothing is converted.
    if !pages.space().states().covers(range) {
        return INVALID;
    }
    match pages.convert_all(range, to) {
        Ok(_) => 0,
        // Said in the log by whoever failed.
        Err(_) => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(address: u64, pages: u64, attributes: u64) -> Option<(u64, u64, Visibility)> {
        let request = Request::parse([address, pages, attributes, 7]).ok()?;
        let range = request.range;
        Some((range.start().raw(), range.pages(), request.to))
    }

    #[test]
    fn bit_4_says_private_and_the_page_size_is_a_hint() {
        assert_eq!(parse(0x1000, 1, 0), Some((0x1000, 1, Visibility::Shared)));
        for hint in 0..16 {
            let private = parse(0x20_0000, 512, 0x10 | hint);
            assert_eq!(private, Some((0x20_0000, 512, Visibility::Private)));
        }
    }

    #[test]
    fn what_are_no_pages_or_no_attributes_is_refused() {
        assert_eq!(parse(0x1000, 0, 0x10), None);
        assert_eq!(parse(0x1001, 1, 0x10), None);
        assert_eq!(parse(0x1000, 1, 0x20), None);
        assert_eq!(parse(0x1000, 1, 1 << 63), None);
        assert_eq!(parse(0x1000, 1 << 52, 0), None);
        assert_eq!(parse(0x1000, u64::MAX, 0), None);
        assert_eq!(parse(!0xfff, 1, 0), None);
    }

    proptest! {
        #[test]
        fn a_request_is_the_pages_that_were_named(address: u64, pages: u64, attributes: u64) {
            if let Some((start, count, _)) = parse(address, pages, attributes) {
                prop_assert_eq!((start, count), (address, pages));
                prop_assert!(attributes < 0x20);
            }
        }
    }
}
