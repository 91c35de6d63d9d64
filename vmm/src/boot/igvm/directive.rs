//! What a header of an IGVM file says, for guests of SEV-SNP.
//!
//! ```text
//!   1           platform   which bit of a mask is SNP's
//!   0x101...    start      the guest's policy
//!   0x301...    load       pages, areas of parameters, the first processor
//! ```
//! A header with a mask counts where the mask has SNP's bit. A kind with its highest bit set can be left out.

use std::ops::Range;

use iommu::{Gpa, PAGE_SIZE, PageRange};

use super::headers::{Header, long, number};
use super::parameter::Kind;

/// A directive that an SNP guest is started by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Directive {
    /// What the guest's owner lets the host do.
    Policy(u64),
    /// A page of the guest.
    Page {
        at: PageRange<Gpa>,
        content: PageContent,
        /// Where its content is in the file; zeros otherwise.
        file: Option<Range<usize>>,
    },
    /// Memory for parameters, that goes to no address yet.
    Area {
        number: u32,
        bytes: usize,
        /// What it holds where no parameter is.
        file: Option<Range<usize>>,
    },
    /// A parameter has its place in an area.
    Parameter {
        area: u32,
        offset: usize,
        kind: Kind,
    },
    /// An area goes to its address.
    Insert { area: u32, at: Gpa },
    /// Memory has to be there.
    Required(PageRange<Gpa>),
    /// How a processor starts.
    Processor {
        index: u16,
        at: Gpa,
        file: Range<usize>,
    },
}

/// What a page is to the security processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageContent {
    /// Its content is measured.
    Measured,
    /// That it is there is measured.
    Unmeasured,
    /// The guest's keys go there.
    Secrets,
    /// What the guest's processors are goes there.
    Cpuid,
}

/// Why a file starts no guest here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has guests of other platforms only.
    #[error("it has no guest of SEV-SNP")]
    NoSnp,
    /// It asks for something that ccvm does not do.
    #[error("it asks for {0}")]
    Wants(&'static str),
    /// A header is not as its kind says.
    #[error("its header {index} (type {kind:#x}) makes no sense")]
    Header {
        /// Which of them, counted from 0.
        index: usize,
        /// Its `IGVM_VHT_*`.
        kind: u32,
    },
}

/// The bit of masks that says SNP.
pub(super) fn snp_mask(headers: &[Header<'_>]) -> Result<u32, Refused> {
    const SUPPORTED_PLATFORM: u32 = 1;
    const SNP: u8 = 2;
    let platforms = headers.iter();
    let mut platforms = platforms.filter(|header| header.kind == SUPPORTED_PLATFORM);
    let snp = platforms.find(|header| header.content.get(5) == Some(&SNP));
    let mask = snp.and_then(|header| number(header.content, 0));
    mask.filter(|mask| mask.is_power_of_two())
        .ok_or(Refused::NoSnp)
}

/// What `header`, the one with this `index`, says where `mask` counts. `None`: nothing that matters here.
pub(super) fn read(
    index: usize,
    header: Header<'_>,
    mask: u32,
) -> Result<Option<Directive>, Refused> {
    let Header { kind, content } = header;
    let senseless = Refused::Header { index, kind };
    let masked = mask_at(kind).map(|at| number(content, at).ok_or(senseless));
    if masked.transpose()?.is_some_and(|of| of & mask == 0) {
        return Ok(None);
    }
    match told(kind, content) {
        Told::Says(says) => says.map(Some).ok_or(senseless),
        Told::Nothing => Ok(None),
        Told::Wants(what) => Err(Refused::Wants(what)),
        Told::Unknown => Err(senseless),
    }
}

/// Where a kind of header has its mask, if it has one.
const fn mask_at(kind: u32) -> Option<usize> {
    match kind {
        0x102 | 0x103 | 0x106 | 0x30b | 0x311 => Some(0),
        0x101 | 0x302..=0x305 | 0x30d => Some(8),
        _ => None,
    }
}

enum Told {
    Says(Option<Directive>),
    Nothing,
    Wants(&'static str),
    Unknown,
}

/// By the kinds' numbers in `IgvmVariableHeaderType`.
fn told(kind: u32, content: &[u8]) -> Told {
    const OPTIONAL: u32 = 1 << 31;
    let parameter = |kind| Told::Says(parameter(content, kind));
    match kind {
        0x101 => Told::Says(long(content, 0).map(Directive::Policy)),
        0x301 => Told::Says(area(content)),
        0x302 => page(content),
        0x303 => Told::Says(insert(content)),
        0x304 => Told::Says(processor(content)),
        0x305 => Told::Says(required(content)),
        0x307 => parameter(Kind::VcpuCount),
        0x309 => parameter(Kind::Madt),
        0x30a => parameter(Kind::MmioRanges),
        0x30c => parameter(Kind::MemoryMap),
        0x30e => parameter(Kind::CommandLine),
        0x313 => parameter(Kind::Environment),
        // Platforms; what a loader may move, and this one leaves; words about the file.
        1 | 0x102..=0x105 | 0x107 => Told::Nothing,
        0x308 => Told::Wants("an SRAT, which this machine has not"),
        0x30b => Told::Wants("an ID block, which ccvm does not hand on"),
        0x30d => Told::Wants("a range for errors that is shared from the start"),
        0x30f => Told::Wants("a SLIT, which this machine has not"),
        0x310 => Told::Wants("a PPTT, which this machine has not"),
        0x312 => Told::Wants("a device tree, which this machine has not"),
        kind if kind & OPTIONAL != 0 => Told::Nothing,
        _ => Told::Unknown,
    }
}

fn page(content: &[u8]) -> Told {
    const LARGE: u32 = 1 << 0;
    const UNMEASURED: u32 = 1 << 1;
    const SHARED: u32 = 1 << 2;
    let (Some(at), Some(offset), Some(flags), Some(kind)) = (
        long(content, 0).and_then(one_page),
        number(content, 12),
        number(content, 16),
        number(content, 20),
    ) else {
        return Told::Unknown;
    };
    let content = match (kind, flags) {
        (_, flags) if flags & LARGE != 0 => return Told::Wants("a page of 2 MiB"),
        (_, flags) if flags & SHARED != 0 => {
            return Told::Wants("a page that is shared from the start");
        }
        (0, 0) => PageContent::Measured,
        (0, UNMEASURED) => PageContent::Unmeasured,
        (1, _) => PageContent::Secrets,
        (2, _) => PageContent::Cpuid,
        (3, _) => return Told::Wants("a page of CPUID for XSAVE"),
        _ => return Told::Unknown,
    };
    let file = in_file(offset, PAGE_SIZE);
    Told::Says(file.map(|file| Directive::Page { at, content, file }))
}

fn area(content: &[u8]) -> Option<Directive> {
    /// Enough for any parameter, and no burden.
    const MOST_BYTES: u64 = 1 << 20;
    let bytes = long(content, 0)?;
    if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) || bytes > MOST_BYTES {
        return None;
    }
    Some(Directive::Area {
        number: number(content, 8)?,
        bytes: usize::try_from(bytes).ok()?,
        file: in_file(number(content, 12)?, bytes)?,
    })
}

fn parameter(content: &[u8], kind: Kind) -> Option<Directive> {
    Some(Directive::Parameter {
        area: number(content, 0)?,
        offset: usize::try_from(number(content, 4)?).ok()?,
        kind,
    })
}

fn insert(content: &[u8]) -> Option<Directive> {
    let at = one_page(long(content, 0)?)?.start();
    Some(Directive::Insert {
        area: number(content, 12)?,
        at,
    })
}

fn processor(content: &[u8]) -> Option<Directive> {
    let [low, high] = *content.get(16..)?.first_chunk::<2>()?;
    Some(Directive::Processor {
        index: u16::from_le_bytes([low, high]),
        at: Gpa::new(long(content, 0)?),
        file: in_file(number(content, 12)?, PAGE_SIZE)??,
    })
}

fn required(content: &[u8]) -> Option<Directive> {
    let bytes = number(content, 12)?;
    let range = PageRange::new(Gpa::new(long(content, 0)?), bytes.into());
    range.ok().map(Directive::Required)
}

fn one_page(at: u64) -> Option<PageRange<Gpa>> {
    PageRange::new(Gpa::new(at), PAGE_SIZE).ok()
}

/// Where `bytes` bytes from `offset` on are in the file; `Some(None)` where the offset says that there are none.
/// Whether the file is that long is not known here.
fn in_file(offset: u32, bytes: u64) -> Option<Option<Range<usize>>> {
    if offset == 0 {
        return Some(None);
    }
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(bytes).ok()?)?;
    Some(Some(start..end))
}
