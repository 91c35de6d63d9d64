//! The header of a bzImage (`Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header").

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the header ends, with all fields of protocol 2.12.
const HEADER_END: usize = 0x264;
const MAGIC: (usize, &[u8; 4]) = (0x202, b"HdrS");
/// The first with a 64-bit entry (Linux 3.8).
const VERSION: u16 = 0x20c;
const HAS_64_BIT_ENTRY: u16 = 1 << 0;
const LOADED_HIGH: u8 = 1 << 0;
const SECTOR: u64 = 512;
/// How far above its load address the kernel is entered in 64-bit mode.
pub(super) const ENTRY_64: u64 = 0x200;

/// What a bzImage says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Where it would like to be.
    pub(super) preferred: u64,
    /// If not there, then at a multiple of this; `None` for a kernel that cannot move.
    pub(super) alignment: Option<u64>,
    /// How much memory it takes from its load address on.
    pub(super) init_size: u64,
    /// The highest address that its initial RAM disk may have.
    pub(super) initrd_max: u64,
    /// Bytes of the file up to its end, as far as the header says.
    file_bytes: u64,
}

/// Why a file is no bzImage that can be booted.
#[derive(Debug)]
pub(super) enum NotBootable {
    /// It is none.
    Unlike(&'static str),
    /// It ends too early.
    CutShort,
    /// It cannot be read.
    Unreadable(io::Error),
}

impl Header {
    /// Whether `start`, the first bytes of a file, are those of a bzImage.
    pub(super) fn is_there(start: &[u8]) -> bool {
        let (at, magic) = MAGIC;
        start.get(at..at + magic.len()) == Some(magic)
    }

    /// Reads the header of `file`, which has `file_bytes` bytes.
    pub(super) fn read(file: &File, file_bytes: u64) -> Result<Self, NotBootable> {
        let mut bytes = [0; HEADER_END];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => NotBootable::CutShort,
                _ => NotBootable::Unreadable(error),
            })?;
        let header = Self::parse(&bytes).map_err(NotBootable::Unlike)?;
        match header.file_bytes <= file_bytes {
            true => Ok(header),
            false => Err(NotBootable::CutShort),
        }
    }

    fn parse(bytes: &[u8; HEADER_END]) -> Result<Self, &'static str> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u16_at(0x206) < VERSION {
            return Err("its boot protocol is older than 2.12 (Linux 3.8)");
        }
        if bytes[0x211] & LOADED_HIGH == 0 || u16_at(0x236) & HAS_64_BIT_ENTRY == 0 {
            return Err("it has no 64-bit entry");
        }
        let alignment = u64::from(u32_at(0x230));
        let relocatable = bytes[0x234] != 0;
        if relocatable && !alignment.is_power_of_two() {
            return Err("its header gives an alignment that is none");
        }
        let setup = match bytes[0x1f1] {
            0 => 4,
            sectors => u64::from(sectors),
        };
        Ok(Self {
            preferred: u64_at(0x258),
            alignment: relocatable.then_some(alignment),
            init_size: u32_at(0x260).into(),
            initrd_max: u32_at(0x22c).into(),
            file_bytes: (setup + 1) * SECTOR + u64::from(u32_at(0x1f4)) * 16,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Header {
        /// A header whose initial RAM disk has to be below 2 GiB.
        pub(in crate::boot::x86_64) fn for_tests(
            preferred: u64,
            alignment: Option<u64>,
            init_size: u64,
        ) -> Self {
            Self {
                preferred,
                alignment,
                init_size,
                initrd_max: 0x7fff_ffff,
                file_bytes: 0,
            }
        }
    }

    /// The start of a bzImage of Linux: 16 MiB, 2 MiB, 40 MiB, 2 GiB.
    pub(in crate::boot::x86_64) fn header_bytes() -> [u8; HEADER_END] {
        let mut bytes = [0; HEADER_END];
        bytes[0..2].copy_from_slice(b"MZ");
        bytes[0x1f1] = 1;
        bytes[0x1f4..0x1f8].copy_from_slice(&2_u32.to_le_bytes());
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        bytes[0x211] = 1;
        bytes[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        bytes[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes());
        bytes[0x234] = 1;
        bytes[0x236] = 3;
        bytes[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
        bytes[0x260..0x264].copy_from_slice(&0x280_0000_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_tells_where_the_kernel_can_be() {
        let header = Header::parse(&header_bytes()).unwrap();
        let expected = Header {
            preferred: 16 << 20,
            alignment: Some(2 << 20),
            init_size: 40 << 20,
            initrd_max: 0x7fff_ffff,
            file_bytes: 2 * 512 + 32,
        };
        assert_eq!(header, expected);
        assert!(Header::is_there(&header_bytes()));
        assert!(!Header::is_there(&header_bytes()[..0x205]));
    }

    #[test]
    fn a_kernel_that_cannot_be_entered_in_64_bit_mode_is_refused() {
        for (at, value) in [(0x206, 0x0b), (0x211, 0), (0x236, 2), (0x230, 3)] {
            let mut bytes = header_bytes();
            bytes[at] = value;
            assert!(Header::parse(&bytes).is_err(), "byte {at:#x}");
        }
    }

    #[test]
    fn a_kernel_that_cannot_move_has_no_alignment() {
        let mut bytes = header_bytes();
        bytes[0x234] = 0;
        assert_eq!(Header::parse(&bytes).unwrap().alignment, None);
    }
}
