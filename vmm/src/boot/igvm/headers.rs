//! The frame of an IGVM file: a fixed header, then headers of what belongs where, then data.
//!
//! ```text
//!   0            16 (4: offset, size of both)                       file size
//!   │ magic, version, ... , CRC-32 │ kind │ length │ content │ pad to 8 │ ... │ data ... │
//!   └──────── fixed header ────────┘└────────────── a header ───────────┘
//! ```
//! By the definitions of <https://github.com/microsoft/igvm> (`igvm_defs`), versions 1 and 2. All numbers are
//! little endian.

use flate2::Crc;

/// What every such file begins with.
pub(super) const MAGIC: [u8; 4] = *b"IGVM";

/// Why the frame is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// The fixed header is not of a version that is known, or not of x86-64 with pages of 4 KiB.
    #[error("its header is of a version or of an architecture that is not known")]
    Unknown,
    /// The file is longer or shorter than it says.
    #[error("it is cut short, or its header says a wrong length")]
    Length,
    /// The checksum of its headers is wrong.
    #[error("the checksum of its headers is wrong")]
    Checksum,
    /// A header goes beyond the part of the file that has them.
    #[error("one of its headers is cut short")]
    Header,
}

/// What belongs where, in the file's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// `IGVM_VHT_*`.
    pub(super) kind: u32,
    /// What the kind says that it is.
    pub(super) content: &'a [u8],
}

/// The headers of `file`.
pub(super) fn headers(file: &[u8]) -> Result<Vec<Header<'_>>, BadFrame> {
    let mut rest = checked(file)?;
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let kind = number(rest, 0).ok_or(BadFrame::Header)?;
        let length = number(rest, 4).ok_or(BadFrame::Header)?;
        let length = usize::try_from(length).map_err(|_| BadFrame::Header)?;
        let content = rest.get(8..).and_then(|rest| rest.get(..length));
        let content = content.ok_or(BadFrame::Header)?;
        headers.push(Header { kind, content });
        // The last may be without its padding.
        let next = length.next_multiple_of(8).saturating_add(8);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(headers)
}

/// The part of `file` with its headers, of which its fixed header tells the truth.
fn checked(file: &[u8]) -> Result<&[u8], BadFrame> {
    const VERSION_1: u32 = 1;
    const VERSION_2: u32 = 2;
    /// x86-64, and pages of 4 KiB.
    const ARCHITECTURE: u32 = 0;
    const PAGE: u32 = 4096;
    const CHECKSUM: usize = 20;
    let field = |at| number(file, at).ok_or(BadFrame::Length);
    let fixed = match field(4)? {
        VERSION_1 => 24,
        VERSION_2 if field(24)? == ARCHITECTURE && field(28)? == PAGE => 32,
        _ => return Err(BadFrame::Unknown),
    };
    if usize::try_from(field(16)?) != Ok(file.len()) {
        return Err(BadFrame::Length);
    }
    let offset = usize::try_from(field(8)?).map_err(|_| BadFrame::Length)?;
    let size = usize::try_from(field(12)?).map_err(|_| BadFrame::Length)?;
    let end = offset.checked_add(size).ok_or(BadFrame::Length)?;
    let headers = file.get(offset..end).filter(|_| offset >= fixed);
    let headers = headers.ok_or(BadFrame::Length)?;
    let mut first = file.get(..fixed).unwrap_or_default().to_vec();
    if let Some(checksum) = first.get_mut(CHECKSUM..CHECKSUM + 4) {
        checksum.fill(0);
    }
    let mut crc = Crc::new();
    crc.update(&first);
    crc.update(headers);
    match crc.sum() == field(CHECKSUM)? {
        true => Ok(headers),
        false => Err(BadFrame::Checksum),
    }
}

/// The 32-bit number at `at`.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The 64-bit number at `at`.
pub(super) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}
