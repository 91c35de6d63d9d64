//! The forms in which distributions ship an arm64 kernel.
//!
//! An EFI zboot image (`drivers/firmware/efi/libstub/zboot-header.S` of Linux) is a small EFI program
//! with the compressed `Image` inside: `MZ` and `zimg`, then offset and length of the payload as
//! 32-bit numbers, and from byte 24 on the name of the compression.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::boot::FileError;

/// No kernel is larger when decompressed; a file that is would only fill the host's memory.
const MOST_BYTES: u64 = 512 << 20;

/// How a kernel is packed: the compressed bytes of the file, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packing {
    offset: u64,
    bytes: u64,
    compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Packing {
    /// How the file that begins with `start` is packed, or `None` when it is not.
    pub(super) fn of(start: &[u8], path: &Path) -> Result<Option<Self>, FileError> {
        let whole = |compression| Self {
            offset: 0,
            bytes: u64::MAX,
            compression,
        };
        match start {
            [0x1f, 0x8b, ..] => Ok(Some(whole(Compression::Gzip))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Some(whole(Compression::Zstd))),
            [b'M', b'Z', _, _, b'z', b'i', b'm', b'g', rest @ ..] => {
                Self::of_zboot(rest, path).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// `rest` are the bytes of the header from byte 8 on.
    fn of_zboot(rest: &[u8], path: &Path) -> Result<Self, FileError> {
        let number = |offset: usize| {
            let bytes = rest.get(offset..)?.first_chunk::<4>()?;
            Some(u64::from(u32::from_le_bytes(*bytes)))
        };
        let fields = (number(0), number(4), rest.get(16..));
        let (Some(offset), Some(bytes), Some(name)) = fields else {
            return Err(FileError::damaged(path, "it is cut short"));
        };
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let compression = match name {
            b"gzip" => Compression::Gzip,
            b"zstd" | b"zstd22" => Compression::Zstd,
            other => {
                let name = String::from_utf8_lossy(other);
                let what = format!("its kernel is compressed by '{name}', not by gzip or zstd");
                return Err(FileError::damaged(path, what));
            }
        };
        Ok(Self {
            offset,
            bytes,
            compression,
        })
    }
}

/// Decompresses a kernel into a file that only this process knows.
pub(super) fn unpack(file: &File, packing: Packing, path: &Path) -> Result<File, FileError> {
    let mut packed = file;
    packed
        .seek(SeekFrom::Start(packing.offset))
        .map_err(FileError::unreadable(path))?;
    let packed = BufReader::with_capacity(1 << 16, packed.take(packing.bytes));
    let memory = rustix::fs::memfd_create(c"ccvm-kernel", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| FileError::unreadable(path)(errno.into()))?;
    let mut image = File::from(memory);
    let copied = match packing.compression {
        Compression::Gzip => copy(flate2::bufread::GzDecoder::new(packed), &mut image),
        Compression::Zstd => ruzstd::decoding::StreamingDecoder::new(packed)
            .map_err(io::Error::other)
            .and_then(|decoder| copy(decoder, &mut image)),
    };
    match copied {
        Ok(bytes) if bytes < MOST_BYTES => Ok(image),
        Ok(_) => Err(FileError::damaged(
            path,
            "it decompresses to 512 MiB and more",
        )),
        Err(error) => {
            let what = format!("its kernel does not decompress ({error})");
            Err(FileError::damaged(path, what))
        }
    }
}

fn copy(decoder: impl Read, image: &mut File) -> io::Result<u64> {
    io::copy(&mut decoder.take(MOST_BYTES), image)
}
