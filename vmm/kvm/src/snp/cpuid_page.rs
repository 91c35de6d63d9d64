//! The page that tells an SNP guest what its processors are: `struct snp_cpuid_table` of Linux
//! (`arch/x86/include/asm/sev.h`), "CPUID page" of the SEV-SNP firmware ABI (56860).
//!
//! ```text
//! 0      4          16            64            112
//! │ count│ reserved │ leaf 0      │ leaf 1      │ ... 64 at most
//! ```
//! The security processor compares it with the real processors, and refuses a page that promises more
//! than they do.

use kvm_bindings::kvm_cpuid_entry2;

use crate::x86_64::{Cpuid, Processors};

/// Leaves that the page has room for.
const MOST_LEAVES: usize = 64;
const HEADER_BYTES: usize = 16;
const LEAF_BYTES: usize = 48;

/// KVM offers more leaves than the page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} leaves of CPUID are more than the {MOST_LEAVES} that an SNP guest can be told of")]
pub struct TooManyLeaves(pub usize);

/// What an SNP guest is told of its processors.
pub struct CpuidPage(Box<[u8; 4096]>);

impl CpuidPage {
    /// What `supported` offers, for the first of `processors`. The guest knows by itself how the others
    /// differ.
    ///
    /// # Errors
    /// When there are too many leaves.
    pub fn new(supported: &Cpuid, processors: Processors) -> Result<Self, TooManyLeaves> {
        let mut leaves = supported.of(0, processors);
        leaves.iter_mut().for_each(withhold);
        // A leaf that is not there reads as zeros.
        leaves.retain(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx] != [0; 4]);
        if leaves.len() > MOST_LEAVES {
            return Err(TooManyLeaves(leaves.len()));
        }
        let mut page = Box::new([0; 4096]);
        let (header, places) = page.split_at_mut(HEADER_BYTES);
        let count = u32::try_from(leaves.len()).map_err(|_| TooManyLeaves(leaves.len()))?;
        for (to, from) in header.iter_mut().zip(count.to_le_bytes()) {
            *to = from;
        }
        for (place, leaf) in places.chunks_exact_mut(LEAF_BYTES).zip(&leaves) {
            place.copy_from_slice(&encoded(leaf));
        }
        Ok(Self(page))
    }

    /// The page.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 4096] {
        &self.0
    }
}

/// Extended state: its size depends on what is switched on in XCR0 and XSS.
const EXTENDED_STATE: u32 = 0xd;

/// `struct snp_cpuid_fn`.
fn encoded(leaf: &kvm_cpuid_entry2) -> [u8; LEAF_BYTES] {
    /// XCR0 when a processor starts: x87 only.
    const XCR0: u32 = 1;
    /// How large the area is then: legacy region and header.
    const AREA: u32 = 0x240;
    let depends = leaf.function == EXTENDED_STATE && leaf.index < 2;
    let (xcr0, ebx) = match depends {
        true => (XCR0, AREA),
        false => (0, leaf.ebx),
    };
    let mut bytes = [0; LEAF_BYTES];
    let words = [leaf.function, leaf.index]
        .into_iter()
        // XCR0 and XSS, of two words each.
        .chain([xcr0, 0, 0, 0])
        .chain([leaf.eax, ebx, leaf.ecx, leaf.edx]);
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Takes away what KVM emulates, or would for other guests, and an SNP guest cannot have.
fn withhold(leaf: &mut kvm_cpuid_entry2) {
    const TSC_DEADLINE: u32 = 1 << 24;
    const TSC_ADJUST: u32 = 1 << 1;
    /// SPEC_CTRL, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, CORE_CAPABILITIES, SSBD: registers of Intel.
    const REGISTERS_OF_INTEL: u32 = 0b11_1111 << 26;
    const VIRT_SSBD: u32 = 1 << 25;
    match (leaf.function, leaf.index) {
        (1, _) => leaf.ecx &= !TSC_DEADLINE,
        (7, 0) => {
            leaf.ebx &= !TSC_ADJUST;
            leaf.edx &= !REGISTERS_OF_INTEL;
        }
        (0x8000_0008, _) => leaf.ebx &= !VIRT_SSBD,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86_64::entry as leaf;

    fn page(leaves: Vec<kvm_cpuid_entry2>) -> Result<CpuidPage, TooManyLeaves> {
        let one = Processors {
            count: 1,
            physical_bits: 48,
        };
        CpuidPage::new(&Cpuid::from_leaves(leaves), one)
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        let words = bytes.chunks_exact(4);
        words
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn the_page_counts_its_leaves_and_has_them_in_their_places() {
        let page = page(vec![
            leaf(0, 0, [1, u32::from_le_bytes(*b"Auth"), 2, 3]),
            leaf(2, 0, [0; 4]),
            leaf(0x8000_001f, 0, [0x1e, 0x33, 4, 5]),
        ])
        .unwrap();
        let all = words(page.bytes());
        assert_eq!(all[..4], [2, 0, 0, 0]);
        assert_eq!(all[4..10], [0; 6]);
        assert_eq!(all[10..14], [1, u32::from_le_bytes(*b"Auth"), 2, 3]);
        assert_eq!(all[16..22], [0x8000_001f, 0, 0, 0, 0, 0]);
        assert_eq!(all[22..26], [0x1e, 0x33, 4, 5]);
        assert!(all[28..].iter().all(|word| *word == 0));
    }

    #[test]
    fn extended_state_is_that_of_a_processor_that_starts() {
        let page = page(vec![leaf(0xd, 0, [7, 0x988, 0x988, 0])]).unwrap();
        let all = words(page.bytes());
        assert_eq!(all[4..10], [0xd, 0, 1, 0, 0, 0]);
        assert_eq!(all[10..14], [7, 0x240, 0x988, 0]);
    }

    #[test]
    fn what_the_security_processor_would_refuse_is_not_promised() {
        let page = page(vec![
            leaf(1, 0, [1, 0, u32::MAX, 0]),
            leaf(7, 0, [0, u32::MAX, 0, u32::MAX]),
            leaf(0x8000_0008, 0, [0, u32::MAX, 0, 0]),
        ])
        .unwrap();
        let all = words(page.bytes());
        assert_eq!(all[12] & 1 << 24, 0);
        assert_eq!((all[12 + 11], all[12 + 13]), (!(1 << 1), (1 << 26) - 1));
        assert_eq!(all[12 + 23], !(1 << 25));
    }

    #[test]
    fn more_leaves_than_the_page_holds_are_refused() {
        let leaves = |count: u32| (0..count).map(|at| leaf(0x100 + at, 0, [1; 4])).collect();
        assert!(page(leaves(64)).is_ok());
        assert_eq!(page(leaves(65)).map(drop), Err(TooManyLeaves(65)));
    }
}
