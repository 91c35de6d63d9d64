//! An ELF kernel with a note that says where PVH enters it.
//!
//! The note is `XEN_ELFNOTE_PHYS32_ENTRY`: name `Xen`, type 18, a physical address of 4 or 8 bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// A kernel has about six.
const MOST_SEGMENTS: u16 = 64;
/// All notes of a kernel have less than a page.
const MOST_NOTES: u64 = 1 << 16;

const MACHINE_X86_64: u16 = 62;
const MACHINE_AARCH64: u16 = 183;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
const ENTRY_NOTE: u32 = 18;

/// A part of the kernel in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it is.
    pub(super) start: u64,
    /// How many bytes it has there.
    pub(super) bytes: u64,
}

/// What an ELF kernel says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vmlinux {
    /// Its parts.
    pub(super) segments: Vec<Segment>,
    /// Where PVH enters it.
    pub(super) entry: u32,
}

/// Why an ELF file is no kernel that can be booted.
#[derive(Debug)]
pub(super) enum NotBootable {
    /// It is none.
    Unlike(&'static str),
    /// It contradicts itself, or ends too early.
    Damaged(&'static str),
    /// It cannot be read.
    Unreadable(io::Error),
}

impl From<io::Error> for NotBootable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it is cut short"),
            _ => Self::Unreadable(error),
        }
    }
}

impl Vmlinux {
    /// Whether `start`, the first bytes of a file, are those of an ELF file.
    pub(super) fn is_there(start: &[u8]) -> bool {
        start.starts_with(b"\x7fELF")
    }

    /// Reads what `file`, which has `file_bytes` bytes, says of itself.
    pub(super) fn read(file: &File, file_bytes: u64) -> Result<Self, NotBootable> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let (table, count) = segment_table(&header)?;
        let mut segments = Vec::new();
        let mut entry = None;
        for index in 0..count {
            let at = table.checked_add(u64::from(index) * SEGMENT_BYTES as u64);
            let at = at.ok_or(NotBootable::Damaged("its segments are nowhere"))?;
            let segment = ProgramHeader::read(file, at)?;
            if segment.file_end().is_none_or(|end| end > file_bytes) {
                return Err(NotBootable::Damaged("it is cut short"));
            }
            match segment.kind {
                SEGMENT_LOAD if segment.memory_bytes > 0 => segments.push(segment.in_memory()?),
                SEGMENT_NOTE => entry = entry.or(pvh_entry(&segment.notes(file)?)),
                _ => {}
            }
        }
        let without = "it has no PVH entry (CONFIG_PVH)";
        let entry = entry.ok_or(NotBootable::Unlike(without))?;
        let inside = |segment: &Segment| {
            let offset = u64::from(entry).checked_sub(segment.start);
            offset.is_some_and(|offset| offset < segment.bytes)
        };
        match segments.iter().any(inside) {
            true => Ok(Self { segments, entry }),
            false => Err(NotBootable::Damaged("its PVH entry is in no segment")),
        }
    }
}

/// Where the table of segments is in the file, and how many it has.
fn segment_table(header: &[u8; HEADER_BYTES]) -> Result<(u64, u16), NotBootable> {
    const CLASS_64_LITTLE_ENDIAN: [u8; 2] = [2, 1];
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if header[4..6] != CLASS_64_LITTLE_ENDIAN {
        return Err(NotBootable::Unlike("it is no 64-bit ELF file"));
    }
    match half(18) {
        MACHINE_X86_64 => {}
        MACHINE_AARCH64 => return Err(NotBootable::Unlike("it is an ELF file for arm64")),
        _ => return Err(NotBootable::Unlike("it is an ELF file for another machine")),
    }
    let (size, count) = (half(54), half(56));
    if usize::from(size) != SEGMENT_BYTES || count > MOST_SEGMENTS {
        return Err(NotBootable::Damaged("its segments are no kernel's"));
    }
    Ok((u64_at(header, 32), count))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.copied().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.copied().map_or(0, u64::from_le_bytes)
}

struct ProgramHeader {
    kind: u32,
    file_offset: u64,
    physical: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

impl ProgramHeader {
    fn read(file: &File, at: u64) -> io::Result<Self> {
        let mut bytes = [0; SEGMENT_BYTES];
        file.read_exact_at(&mut bytes, at)?;
        Ok(Self {
            kind: u32_at(&bytes, 0),
            file_offset: u64_at(&bytes, 8),
            physical: u64_at(&bytes, 24),
            file_bytes: u64_at(&bytes, 32),
            memory_bytes: u64_at(&bytes, 40),
        })
    }

    fn file_end(&self) -> Option<u64> {
        self.file_offset.checked_add(self.file_bytes)
    }

    fn in_memory(&self) -> Result<Segment, NotBootable> {
        if self.file_bytes > self.memory_bytes {
            return Err(NotBootable::Damaged("a segment is larger than its memory"));
        }
        Ok(Segment {
            start: self.physical,
            bytes: self.memory_bytes,
        })
    }

    fn notes(&self, file: &File) -> io::Result<Vec<u8>> {
        let bytes = self.file_bytes.min(MOST_NOTES);
        let mut notes = vec![0; usize::try_from(bytes).unwrap_or(0)];
        file.read_exact_at(&mut notes, self.file_offset)?;
        Ok(notes)
    }
}

/// The entry among `notes`: lengths of name and content, type, then both, each padded to 4 bytes.
fn pvh_entry(mut notes: &[u8]) -> Option<u32> {
    loop {
        let header = notes.get(..12)?;
        let [name_bytes, content_bytes] = [0, 4].map(|at| u32_at(header, at) as usize);
        let rest = notes.get(12..)?;
        let name = rest.get(..name_bytes)?;
        let rest = rest.get(name_bytes.checked_next_multiple_of(4)?..)?;
        let content = rest.get(..content_bytes)?;
        if u32_at(header, 8) == ENTRY_NOTE && name == b"Xen\0" {
            return match content_bytes {
                4 => Some(u32_at(content, 0)),
                8 => u32::try_from(u64_at(content, 0)).ok(),
                _ => None,
            };
        }
        notes = rest.get(content_bytes.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
pub(super) mod tests;
