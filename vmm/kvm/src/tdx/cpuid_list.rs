//! A structure that ends with a `struct kvm_cpuid2`: so many words, then a list of leaves.
//!
//! ```text
//! words ... │ nent (u32), padding (u32) │ leaf, 5 words │ leaf │ ...
//! ```

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::x86_64::halves;

/// As many leaves as any KVM has (`KVM_MAX_CPUID_ENTRIES` of Linux 7.3).
pub(super) const MOST_LEAVES: u32 = 256;

/// Words of a `struct kvm_cpuid_entry2`.
const LEAF_WORDS: usize = size_of::<kvm_cpuid_entry2>() / size_of::<u64>();
const _: () = assert!(LEAF_WORDS == 5 && size_of::<kvm_cpuid_entry2>() == 40);

/// The structure, as the kernel reads and writes it.
#[derive(Debug, Clone)]
pub(super) struct CpuidList {
    words: Vec<u64>,
    /// How many words stand before the list.
    before: usize,
}

impl CpuidList {
    /// After `before` words that are 0, room for so many leaves.
    pub(super) fn with_room(before: usize, leaves: u32) -> Self {
        let room = LEAF_WORDS.saturating_mul(leaves as usize);
        let mut words = vec![0; before.saturating_add(1).saturating_add(room)];
        if let Some(count) = words.get_mut(before) {
            *count = leaves.into();
        }
        Self { words, before }
    }

    /// After `before` words that are 0, these leaves.
    pub(super) fn of(before: usize, leaves: &[kvm_cpuid_entry2]) -> Self {
        // Some 256 at most: KVM has no more.
        let count = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        let mut list = Self::with_room(before, count);
        let places = list.words.iter_mut().skip(before + 1);
        for (place, word) in places.zip(leaves.iter().flat_map(words_of)) {
            *place = word;
        }
        list
    }

    /// All of it.
    pub(super) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The word with this index.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// How many leaves there are, or would be.
    pub(super) fn count(&self) -> u32 {
        let [count, _padding] = halves(self.word(self.before));
        count
    }

    /// The leaves that are there: no more than there is room for.
    pub(super) fn leaves(&self) -> Vec<kvm_cpuid_entry2> {
        let places = self.words.get(self.before + 1..).unwrap_or_default();
        let leaves = places.chunks_exact(LEAF_WORDS).map(leaf_of);
        leaves.take(self.count() as usize).collect()
    }
}

fn words_of(leaf: &kvm_cpuid_entry2) -> [u64; LEAF_WORDS] {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let flags = leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    [
        pair(leaf.function, leaf.index),
        pair(flags, leaf.eax),
        pair(leaf.ebx, leaf.ecx),
        pair(leaf.edx, 0),
        0,
    ]
}

fn leaf_of(words: &[u64]) -> kvm_cpuid_entry2 {
    let half = |index: usize| {
        let word = words.get(index / 2).copied().unwrap_or(0);
        let [low, high] = halves(word);
        if index.is_multiple_of(2) { low } else { high }
    };
    kvm_cpuid_entry2 {
        function: half(0),
        index: half(1),
        flags: half(2),
        eax: half(3),
        ebx: half(4),
        ecx: half(5),
        edx: half(6),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_back_as_they_went_in() {
        let leaf = |function: u32| kvm_cpuid_entry2 {
            function,
            index: 2,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: 0x1111_1111,
            ebx: 0x2222_2222,
            ecx: 0x3333_3333,
            edx: u32::MAX,
            ..Default::default()
        };
        let leaves = [leaf(7), leaf(0x8000_0008)];
        let list = CpuidList::of(3, &leaves);
        assert_eq!(list.leaves(), leaves);
        assert_eq!((list.count(), list.word(0)), (2, 0));
        assert_eq!(list.word(4), 7 | 2 << 32, "after the count");
    }

    #[test]
    fn a_kernel_that_counts_more_than_there_is_room_for_gives_what_there_is() {
        let mut list = CpuidList::with_room(0, 2);
        assert_eq!(list.words_mut().len(), 11);
        list.words_mut()[0] = 1000;
        assert_eq!((list.count(), list.leaves().len()), (1000, 2));
    }
}
