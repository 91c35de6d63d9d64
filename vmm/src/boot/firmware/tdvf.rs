//! What a TDVF says of itself (Intel TDX Virtual Firmware Design Guide, 344991, chapter 11, "TDVF
//! Metadata"): which parts of the image belong where, and which memory it wants besides.
//!
//! ```text
//!   0: "TDVF"   4: length   8: version   12: number of sections   16: section, 32 bytes each
//!   section:  0: place in the file   4: bytes in the file   8: address   16: bytes of memory   24: type   28: attributes
//! ```

use std::ops::Range;

use iommu::{Gpa, PageRange};

use super::guid_table::{self, Guid};

/// `e47a6535-984a-4798-865e-4685a7bf8ec2`: how far before the end of the image the metadata is.
const OFFSET: Guid = [
    0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2,
];

const SIGNATURE: &[u8; 4] = b"TDVF";
const VERSION: u32 = 1;
const HEADER: usize = 16;
const SECTION: usize = 32;
/// More than any firmware has.
const MOST_SECTIONS: usize = 64;

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Code: the boot firmware volume.
    Code,
    /// Variables: the configuration firmware volume.
    Variables,
    /// Where the firmware finds what it is told: the TD hand-off block.
    Hob,
    /// Memory of the firmware's own, zeros: stack and heap.
    Temporary,
    /// Memory that the firmware accepts by itself.
    Permanent,
    /// Where the kernel goes that the firmware starts.
    Payload,
    /// Where the kernel's command line goes.
    PayloadParameters,
}

impl Kind {
    fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Code,
            1 => Self::Variables,
            2 => Self::Hob,
            3 => Self::Temporary,
            4 => Self::Permanent,
            5 => Self::Payload,
            6 => Self::PayloadParameters,
            _ => return None,
        })
    }

    /// Whether its memory is part of the launch.
    #[must_use]
    pub const fn is_loaded(self) -> bool {
        !matches!(self, Self::Permanent)
    }
}

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it is for.
    pub kind: Kind,
    /// Its memory.
    pub range: PageRange<Gpa>,
    /// Its content in the file, at the beginning of its memory; empty for most.
    pub file: Range<usize>,
    /// Whether its content is measured when it is loaded.
    pub measured: bool,
}

/// Why an image is none that a TD can start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTdvf {
    /// It does not say that it is one.
    #[error("it has no metadata of a TDVF")]
    Absent,
    /// What it says is cut short.
    #[error("its metadata do not fit in it")]
    CutShort,
    /// A later format.
    #[error("its metadata are of version {0}, and not of version 1")]
    Version(u32),
    /// A section that makes no sense: its index, and why.
    #[error("section {0} of its metadata {1}")]
    Section(usize, &'static str),
    /// A TD could not start from it.
    #[error("it has no section for {0}, or several")]
    Lacks(&'static str),
}

/// What the TDVF `image` says of itself.
///
/// # Errors
/// When it is none, or nothing that could be loaded.
pub fn sections(image: &[u8]) -> Result<Vec<Section>, NotTdvf> {
    let entry = guid_table::find(image, &OFFSET).ok_or(NotTdvf::Absent)?;
    let back = entry.first_chunk().ok_or(NotTdvf::CutShort)?;
    let back = usize::try_from(u32::from_le_bytes(*back)).map_err(|_| NotTdvf::CutShort)?;
    let at = image.len().checked_sub(back).ok_or(NotTdvf::CutShort)?;
    let metadata = image.get(at..).ok_or(NotTdvf::CutShort)?;
    let header = metadata.get(..HEADER).ok_or(NotTdvf::CutShort)?;
    if header.first_chunk() != Some(SIGNATURE) {
        return Err(NotTdvf::Absent);
    }
    match u32_at(header, 8) {
        VERSION => {}
        other => return Err(NotTdvf::Version(other)),
    }
    let count = usize::try_from(u32_at(header, 12)).unwrap_or(usize::MAX);
    if count > MOST_SECTIONS {
        return Err(NotTdvf::CutShort);
    }
    let list = metadata.get(HEADER..HEADER + count * SECTION);
    let list = list.ok_or(NotTdvf::CutShort)?;
    let mut found: Vec<Section> = Vec::with_capacity(count);
    for (index, bytes) in list.chunks_exact(SECTION).enumerate() {
        let wrong = |why| NotTdvf::Section(index, why);
        let Some(section) = section(bytes, image.len()).map_err(wrong)? else {
            continue;
        };
        let meets = |other: &Section| other.range.intersection(section.range).is_some();
        if found.iter().any(meets) {
            return Err(wrong("overlaps another"));
        }
        found.push(section);
    }
    complete(&found)?;
    Ok(found)
}

/// The section in `bytes`; `None` for one that nothing has to be done about.
fn section(bytes: &[u8], file_bytes: usize) -> Result<Option<Section>, &'static str> {
    const MEASURED: u32 = 1 << 0;
    let memory = u64_at(bytes, 16);
    let Some(kind) = Kind::of(u32_at(bytes, 24)) else {
        return match memory {
            0 => Ok(None),
            _ => Err("is of a type that ccvm does not know, and wants memory"),
        };
    };
    if memory == 0 {
        return Err("has no memory");
    }
    let range = PageRange::new(Gpa::new(u64_at(bytes, 8)), memory);
    let range = range.map_err(|_| "is not made of whole pages")?;
    let (from, length) = (u32_at(bytes, 0), u32_at(bytes, 4));
    if u64::from(length) > memory {
        return Err("has more content than memory");
    }
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let to = usize::try_from(length).ok();
    let to = to.and_then(|length| from.checked_add(length));
    let to = to.filter(|to| *to <= file_bytes);
    let file = match (length, to) {
        (0, _) => 0..0,
        (_, Some(to)) => from..to,
        (_, None) => return Err("has content beyond the end of the file"),
    };
    let filled = matches!(kind, Kind::Code | Kind::Variables | Kind::Payload);
    if !filled && !file.is_empty() {
        return Err("has content where none belongs");
    }
    Ok(Some(Section {
        kind,
        range,
        file,
        measured: u32_at(bytes, 28) & MEASURED != 0,
    }))
}

/// Whether a TD could start from these.
fn complete(sections: &[Section]) -> Result<(), NotTdvf> {
    let count = |kind| {
        sections
            .iter()
            .filter(|section| section.kind == kind)
            .count()
    };
    for (kind, what, allowed) in [
        (Kind::Code, "code", 1..=MOST_SECTIONS),
        (Kind::Hob, "what it is told (TD HOB)", 1..=1),
        (Kind::Payload, "a kernel", 0..=1),
        (Kind::PayloadParameters, "a command line", 0..=1),
    ] {
        if !allowed.contains(&count(kind)) {
            return Err(NotTdvf::Lacks(what));
        }
    }
    Ok(())
}

/// The number at `offset`, which is within `bytes`.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let word = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(bytes, offset)) | u64::from(u32_at(bytes, offset + 4)) << 32
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::guid_table::tests::with_table;
    use super::*;

    /// Numbers of a section: place and bytes in the file, address, bytes of memory, type, attributes.
    pub(crate) type Raw = (u32, u32, u64, u64, u32, u32);

    /// Like td-shim: code at the end, variables before, memory below, a kernel and its command line.
    pub(crate) const SHIM: [Raw; 6] = [
        (0x1000, 0x1000, 0xffff_f000, 0x1000, 0, 1),
        (0, 0x1000, 0xffff_e000, 0x1000, 1, 0),
        (0, 0, 0x80_0000, 0x2000, 2, 0),
        (0, 0, 0x81_0000, 0x1_0000, 3, 0),
        (0, 0, 0x100_0000, 0x200_0000, 5, 0),
        (0, 0, 0x90_0000, 0x1000, 6, 0),
    ];

    /// An image of two pages with these sections.
    pub(crate) fn image(sections: &[Raw]) -> Vec<u8> {
        let mut metadata = SIGNATURE.to_vec();
        metadata.extend(
            (HEADER + sections.len() * SECTION)
                .to_le_bytes()
                .split_at(4)
                .0,
        );
        metadata.extend(VERSION.to_le_bytes());
        metadata.extend(u32::try_from(sections.len()).unwrap().to_le_bytes());
        for (from, length, address, memory, kind, attributes) in sections {
            metadata.extend(from.to_le_bytes());
            metadata.extend(length.to_le_bytes());
            metadata.extend(address.to_le_bytes());
            metadata.extend(memory.to_le_bytes());
            metadata.extend(kind.to_le_bytes());
            metadata.extend(attributes.to_le_bytes());
        }
        let table = with_table(Vec::new(), &[(OFFSET, &[0; 4])]).len();
        let back = u32::try_from(metadata.len() + table).unwrap().to_le_bytes();
        let mut image = vec![0xc0; 0x2000 - metadata.len() - table];
        image.extend(&metadata);
        with_table(image, &[(OFFSET, &back)])
    }

    #[test]
    fn a_firmware_says_what_belongs_where() {
        let found = sections(&image(&SHIM)).unwrap();
        let kinds: Vec<_> = found.iter().map(|section| section.kind).collect();
        let expected = [
            Kind::Code,
            Kind::Variables,
            Kind::Hob,
            Kind::Temporary,
            Kind::Payload,
            Kind::PayloadParameters,
        ];
        assert_eq!(kinds, expected);
        assert_eq!(found[0].file, 0x1000..0x2000);
        assert_eq!(found[2].range.start(), Gpa::new(0x80_0000));
        let measured: Vec<_> = found.iter().map(|section| section.measured).collect();
        assert_eq!(measured, [true, false, false, false, false, false]);
    }

    #[test]
    fn an_image_that_is_none_is_told_from_one_that_is_damaged() {
        assert_eq!(sections(&[0; 0x2000]), Err(NotTdvf::Absent));
        assert_eq!(sections(&[]), Err(NotTdvf::Absent));
        let whole = image(&SHIM);
        let cut = sections(&whole[0x1f00..]);
        assert_eq!(cut, Err(NotTdvf::CutShort));
        let at = whole.windows(4).position(|four| four == SIGNATURE).unwrap();
        let mut later = whole.clone();
        later[at + 8] = 2;
        assert_eq!(sections(&later), Err(NotTdvf::Version(2)));
        let mut many = whole;
        many[at + 12] = 0xff;
        assert_eq!(sections(&many), Err(NotTdvf::CutShort));
    }

    #[test]
    fn a_section_that_makes_no_sense_is_named() {
        let with = |change: fn(&mut [Raw; 6])| {
            let mut raw = SHIM;
            change(&mut raw);
            sections(&image(&raw)).unwrap_err().to_string()
        };
        assert!(
            with(|raw| raw[1].2 = 0xffff_f000).contains("section 1"),
            "overlap"
        );
        assert!(with(|raw| raw[3].2 = 0x81_0001).contains("whole pages"));
        assert!(with(|raw| raw[3].3 = u64::MAX - 0xfff).contains("whole pages"));
        assert!(with(|raw| raw[0].0 = 0x1001).contains("end of the file"));
        assert!(with(|raw| raw[0].1 = 0x1001).contains("more content"));
        assert!(with(|raw| raw[3].1 = 0x1000).contains("where none belongs"));
        assert!(with(|raw| raw[3].4 = 99).contains("does not know"));
        assert!(with(|raw| raw[3].3 = 0).contains("has no memory"));
        assert!(with(|raw| raw[2].4 = 3).contains("TD HOB"));
        assert!(with(|raw| raw[3].4 = 2).contains("TD HOB"), "two of them");
        assert!(with(|raw| raw[0].4 = 1).contains("code"));
    }
}
