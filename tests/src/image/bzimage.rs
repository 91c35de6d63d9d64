//! The ELF file in a `bzImage` (Documentation/arch/x86/boot.rst of Linux).
//!
//! ```text
//! setup sectors │ program that unpacks ... payload (compressed ELF file, its length) ...
//!               └ payload_offset counts from here
//! ```

use std::io::Read as _;

use anyhow::{Context, bail};

/// Where the header has its fields, and how long these are.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// The kernel's build puts the unpacked length after what it has compressed.
const LENGTH_FIELD: usize = 4;

/// Unpacks the kernel.
///
/// # Errors
/// When this is no `bzImage`, or is compressed in a way that no distribution's kernel was at the time
/// of writing.
pub fn unpack(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        bail!("the kernel is no bzImage");
    }
    let field = |at: usize| -> anyhow::Result<usize> {
        let bytes = image.get(at..at + 4).context("the header is cut off")?;
        let number = u32::from_le_bytes(bytes.try_into().unwrap_or_default());
        usize::try_from(number).context("the header names too large a number")
    };
    let sectors = match image.get(SETUP_SECTORS) {
        // What it stands for is in the protocol's oldest version.
        Some(0) | None => 4,
        Some(sectors) => usize::from(*sectors),
    };
    let start = (sectors + 1) * SECTOR + field(PAYLOAD_OFFSET)?;
    let end = start + field(PAYLOAD_LENGTH)?;
    let payload = image.get(start..end).context("the payload is cut off")?;
    let mut kernel = Vec::new();
    match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let packed = &payload[..payload.len().saturating_sub(LENGTH_FIELD)];
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed)
                .context("cannot unpack the kernel")?;
            decoder.read_to_end(&mut kernel)
        }
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(payload).read_to_end(&mut kernel),
        _ => bail!("the kernel is compressed by neither zstd nor gzip"),
    }
    .context("cannot unpack the kernel")?;
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// One setup sector, 8 bytes of a program, and the payload.
    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR + 8];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET] = 8;
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length);
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_unpacked_by_its_kind() {
        let kernel = b"\x7fELF and so on".repeat(100);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&kernel).unwrap();
        let gzip = gzip.finish().unwrap();
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let mut zstd = ruzstd::encoding::compress_to_vec(kernel.as_slice(), level);
        zstd.extend_from_slice(&1400_u32.to_le_bytes());
        for payload in [gzip, zstd] {
            assert_eq!(unpack(&bzimage(&payload)).unwrap(), kernel);
        }
    }

    #[test]
    fn what_is_no_bzimage_is_refused() {
        assert!(unpack(b"MZ").is_err());
        let mut cut = bzimage(&[0x1f, 0x8b]);
        cut[PAYLOAD_LENGTH + 2] = 1;
        assert!(unpack(&cut).unwrap_err().to_string().contains("cut off"));
    }
}
