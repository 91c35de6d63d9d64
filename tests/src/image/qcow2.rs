//! An empty qcow2 image, so that no tool of another project is needed to make one.
//!
//! ```text
//!   cluster 0: header   1: table of refcounts   2: refcounts of clusters 0 to 3   3: L1 table, empty
//! ```

const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// Bytes of the disk behind one entry of the L1 table.
const BYTES_OF_L1_ENTRY: u64 = (CLUSTER as u64 / 8) << CLUSTER_BITS;
const HEADER_BYTES: u32 = 104;

/// The image of a disk of `bytes` bytes, all zero (version 3, clusters of 64 KiB).
#[must_use]
pub fn empty_qcow2(bytes: u64) -> Vec<u8> {
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let cluster = |index: u64| (index << CLUSTER_BITS).to_be_bytes();
    let l1_entries = u32::try_from(bytes.div_ceil(BYTES_OF_L1_ENTRY)).unwrap_or(1);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &bytes.to_be_bytes());
    put(36, &l1_entries.to_be_bytes());
    put(40, &cluster(3));
    put(48, &cluster(1));
    put(56, &1_u32.to_be_bytes());
    // Refcounts of 16 bits.
    put(96, &4_u32.to_be_bytes());
    put(100, &HEADER_BYTES.to_be_bytes());
    put(CLUSTER, &cluster(2));
    for index in 0..4 {
        put(2 * CLUSTER + 2 * index, &1_u16.to_be_bytes());
    }
    image
}
