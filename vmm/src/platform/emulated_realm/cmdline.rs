//! What a guest kernel must be told for its devices to work in a Realm.

/// The parameter that sizes the memory through which a Realm's devices are fed.
const PARAMETER: &str = "swiotlb=";

/// Linux counts that memory in slabs of 2 KiB.
const SLAB: u64 = 2 << 10;

/// The least and the most that makes sense: the kernel's own default for hosts that bounce, and the
/// cap that it has for other kinds of confidential VM.
const LEAST: u64 = 16 << 20;
const MOST: u64 = 1 << 30;

/// What to add to the command line of a Realm with assigned devices, if anything.
///
/// All DMA of a Realm that is not coherent goes through shared memory set aside at boot. Linux sizes
/// that for the odd small buffer only, 1 MiB for each GiB, when all memory lies below 4 GiB: disks then
/// fail with "swiotlb buffer is full". This gives a sixteenth of memory, 16 MiB to 1 GiB. An operator
/// who says something about `swiotlb` is left alone.
#[must_use]
pub fn addition(cmdline: &str, memory: u64) -> Option<String> {
    if cmdline
        .split_whitespace()
        .any(|word| word.starts_with(PARAMETER))
    {
        return None;
    }
    let bytes = (memory / 16).clamp(LEAST, MOST);
    Some(format!("{PARAMETER}{}", bytes / SLAB))
}

/// What to add to the command line of a Realm with a virtual IOMMU, if anything.
///
/// Linux translates DMA in a confidential guest by default, and then refuses memory for it: shared
/// memory cannot be mapped through an IOMMU yet (7.3, `iommu_dma_alloc`). Passed through, DMA goes by
/// shared addresses as it does without an IOMMU. An operator who says which is left alone.
#[must_use]
pub fn passthrough(cmdline: &str) -> Option<&'static str> {
    let mut words = cmdline.split_whitespace();
    (!words.any(|word| word.starts_with("iommu.passthrough="))).then_some("iommu.passthrough=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixteenth_of_memory_is_set_aside_within_bounds() {
        let added = |memory| addition("console=ttyS0", memory).unwrap();
        assert_eq!(added(512 << 20), "swiotlb=16384");
        assert_eq!(added(64 << 20), "swiotlb=8192");
        assert_eq!(added(64 << 30), "swiotlb=524288");
    }

    #[test]
    fn a_realm_does_not_translate_unless_its_operator_says_so() {
        assert_eq!(passthrough("quiet"), Some("iommu.passthrough=1"));
        assert_eq!(passthrough("iommu.passthrough=0 quiet"), None);
    }

    #[test]
    fn an_operator_who_has_said_how_much_is_left_alone() {
        assert_eq!(addition("quiet swiotlb=4096 ro", 1 << 30), None);
        assert_eq!(addition("swiotlb=force", 1 << 30), None);
        assert!(addition("noswiotlb=1", 1 << 30).is_some());
    }
}
