//! What a guest starts from: which bytes lie where in its memory before its first instruction.
//!
//! Launch copies these segments, and the launch measurement digests them: both from one list, in one
//! order.
//!
//! ```text
//!          start             start + bytes
//! 0 0 0 0 0 │ content          │ 0 0 0 0
//! └─ page ──┴──┴─ page ───┴────┴─ page ┘     pages(): what a platform populates and measures
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use iommu::addr::RangeError;
use iommu::{Gpa, PAGE_SIZE, PageRange};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page of guest memory.
pub type Page = [u8; 4096];

/// What a segment is to the guest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentKind {
    /// The kernel, decompressed.
    Kernel,
    /// The device tree.
    DeviceTree,
    /// The initial RAM disk.
    Initrd,
    /// A piece of an IGVM file.
    Igvm,
    /// A piece of a TD's firmware.
    Firmware,
    /// How the kernel is told to start.
    CommandLine,
    /// The first MiB: what a kernel is told, its page tables, its ACPI tables. The pages that the security processor
    /// fills count as zeros.
    BootData,
}

impl SegmentKind {
    /// What a person calls it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::DeviceTree => "device tree",
            Self::Initrd => "initrd",
            Self::Igvm => "IGVM file",
            Self::Firmware => "firmware",
            Self::CommandLine => "command line",
            Self::BootData => "boot data",
        }
    }
}

/// Where the bytes of a segment come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// The first bytes of a file.
    File(&'a File),
    /// Memory of ours.
    Bytes(&'a [u8]),
}

/// A piece of a guest's initial memory.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    kind: SegmentKind,
    start: Gpa,
    bytes: u64,
    pages: PageRange<Gpa>,
    content: Content<'a>,
}

impl<'a> Segment<'a> {
    /// The first `bytes` of `file`, from `start` on.
    ///
    /// # Errors
    /// When there are none, or they reach beyond the last address.
    pub fn of_file(
        kind: SegmentKind,
        start: Gpa,
        file: &'a File,
        bytes: u64,
    ) -> Result<Self, RangeError> {
        Self::new(kind, start, bytes, Content::File(file))
    }

    /// All of `content`, from `start` on.
    ///
    /// # Errors
    /// When it is empty, or reaches beyond the last address.
    pub fn of_bytes(kind: SegmentKind, start: Gpa, content: &'a [u8]) -> Result<Self, RangeError> {
        Self::new(kind, start, content.len() as u64, Content::Bytes(content))
    }

    fn new(
        kind: SegmentKind,
        start: Gpa,
        bytes: u64,
        content: Content<'a>,
    ) -> Result<Self, RangeError> {
        let head = start.raw() % PAGE_SIZE;
        let first = Gpa::new(start.raw() - head);
        // What is too long to be rounded up is too long to be a range.
        let length = head.saturating_add(bytes);
        let length = length.checked_next_multiple_of(PAGE_SIZE).unwrap_or(length);
        Ok(Self {
            kind,
            start,
            bytes,
            pages: PageRange::new(first, length)?,
            content,
        })
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> SegmentKind {
        self.kind
    }

    /// Where its first byte goes.
    #[must_use]
    pub const fn start(&self) -> Gpa {
        self.start
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where its bytes come from.
    pub(crate) const fn content(&self) -> Content<'a> {
        self.content
    }

    /// The pages that have something of it.
    #[must_use]
    pub const fn pages(&self) -> PageRange<Gpa> {
        self.pages
    }

    /// The address of each of them.
    pub fn page_addresses(&self) -> impl Iterator<Item = Gpa> + use<> {
        let first = self.pages.start().raw();
        // Within the range, and so below 2^64.
        (0..self.pages.pages()).map(move |page| Gpa::new(first + page * PAGE_SIZE))
    }

    /// What the page at `at` holds: zeros where the segment is not.
    ///
    /// # Errors
    /// When the file cannot be read, or has become shorter.
    pub fn read_page(&self, at: Gpa, page: &mut Page) -> io::Result<()> {
        page.fill(0);
        let before = self.start.offset_from(at).unwrap_or(0);
        let skipped = at.offset_from(self.start).unwrap_or(0);
        let rest = self.bytes.saturating_sub(skipped);
        let room = PAGE_SIZE.saturating_sub(before).min(rest);
        let (Ok(from), Ok(room)) = (usize::try_from(before), usize::try_from(room)) else {
            return Ok(());
        };
        let into = page.get_mut(from..).and_then(|tail| tail.get_mut(..room));
        into.map_or(Ok(()), |into| self.read_at(skipped, into))
    }

    /// Fills `into` with the content from `offset` on.
    ///
    /// # Errors
    /// When it has not as many bytes there, or the file cannot be read.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self.content {
            Content::File(file) => file.read_exact_at(into, offset),
            Content::Bytes(bytes) => {
                let from = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
                let from = from.and_then(|tail| tail.get(..into.len()));
                into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn page_of(segment: &Segment<'_>, at: u64) -> Page {
        // What was there before is not what a segment is measured with.
        let mut page = [0xff; 4096];
        segment.read_page(Gpa::new(at), &mut page).unwrap();
        page
    }

    #[test]
    fn a_segment_is_aligned_out_and_its_content_stays_where_it_is() {
        let content: Vec<u8> = (0..9000u32).map(|at| (at % 251) as u8 + 1).collect();
        let segment =
            Segment::of_bytes(SegmentKind::Initrd, Gpa::new(0x4000_0f00), &content).unwrap();
        assert_eq!(segment.pages().start(), Gpa::new(0x4000_0000));
        assert_eq!(segment.pages().pages(), 4);
        let mut all = Vec::new();
        for page in 0..4 {
            all.extend(page_of(&segment, 0x4000_0000 + page * 4096));
        }
        assert_eq!(all[..0xf00], [0; 0xf00]);
        assert_eq!(all[0xf00..0xf00 + content.len()], content);
        assert!(all[0xf00 + content.len()..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_file_reads_as_its_bytes_do() {
        let content = [7; 5000];
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let at = Gpa::new(0x8000);
        let of_file = Segment::of_file(SegmentKind::Kernel, at, &file, 5000).unwrap();
        let of_bytes = Segment::of_bytes(SegmentKind::Kernel, at, &content).unwrap();
        for page in [0x8000, 0x9000] {
            assert_eq!(page_of(&of_file, page), page_of(&of_bytes, page));
        }
        let longer = Segment::of_file(SegmentKind::Kernel, at, &file, 5001).unwrap();
        let error = longer
            .read_page(Gpa::new(0x9000), &mut [0; 4096])
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nothing_is_no_segment_and_neither_is_what_has_no_addresses() {
        assert!(Segment::of_bytes(SegmentKind::Initrd, Gpa::new(0x1000), &[]).is_err());
        let file = tempfile::tempfile().unwrap();
        let end = Gpa::new(u64::MAX - 0xfff);
        assert!(Segment::of_file(SegmentKind::Kernel, end, &file, u64::MAX).is_err());
    }
}
