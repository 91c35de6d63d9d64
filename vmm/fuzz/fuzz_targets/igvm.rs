//! Any bytes as an IGVM file: what it puts where, and what its guest is told.
#![no_main]

use iommu::{Gpa, PageRange};
use libfuzzer_sys::fuzz_target;
use vmm::boot::igvm::{Igvm, Told};

const FIXED: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    let Ok(guest) = Igvm::parse(framed(bytes)) else {
        return;
    };
    let dram = PageRange::new(Gpa::new(0), 256 << 20);
    let dram: Vec<_> = dram.into_iter().collect();
    let told = Told {
        vcpus: 2,
        dram: &dram,
        devices: [None, None],
        cmdline: "console=ttyS0",
    };
    for (index, piece) in guest.pieces().iter().enumerate() {
        let (_, later) = guest.pieces().split_at(index + 1);
        assert!(!later.iter().any(|other| other.range.overlaps(piece.range)));
        if let Ok(bytes) = guest.bytes(piece, &told) {
            assert!(bytes.is_empty() || bytes.len() as u64 == piece.range.bytes());
        }
    }
    let _ = guest.processor().measured();
});

/// With a frame of version 1 that is right: only the headers and what they point at are left to chance. The headers are
/// as long as the first two bytes say, and all begin with the platform.
fn framed(bytes: &[u8]) -> Vec<u8> {
    const PLATFORM: [u8; 24] = [
        1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let (length, rest) = bytes.split_first_chunk::<2>().unwrap_or((&[0, 0], bytes));
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let size = PLATFORM.len() + length;
    let total = FIXED + PLATFORM.len() + rest.len();
    let numbers = [1, FIXED, size, total, 0].map(|number| number as u32);
    let mut file = b"IGVM".to_vec();
    file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    file.extend(PLATFORM);
    file.extend(rest);
    let sum = crc32(&file[..FIXED + size]);
    file[20..24].copy_from_slice(&sum.to_le_bytes());
    file
}

/// The checksum of IGVM (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), bit))
}
