//! The kernel image of arm64 Linux.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

use iommu::{Gpa, PageRange};

use super::Placement;
use super::compressed::{self, Packing};
use super::placement::Sizes;
use crate::boot::{DoesNotFit, FileError, Kernel};

const HEADER_BYTES: usize = 64;
const MAGIC: &[u8] = b"ARM\x64";

/// What the kernel's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    text_offset: u64,
    image_size: u64,
}

/// A kernel image, decompressed if need be.
#[derive(Debug)]
pub struct Image {
    file: File,
    file_bytes: u64,
    header: Header,
}

impl Kernel for Image {
    type Placement = Placement;

    const COMMAND_LINE_BYTES: usize = 2048;

    const FORMS: &'static str =
        "name an arm64 Image, an Image.gz, or the vmlinuz of a distribution (EFI zboot)";

    /// An `Image`, an `Image.gz`, or an EFI zboot image (`vmlinuz` of several distributions).
    fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::unreadable(path))?;
        let metadata = file.metadata().map_err(FileError::unreadable(path))?;
        if !metadata.is_file() {
            return Err(not_a_kernel(path, "it is no regular file"));
        }
        let start = start_of(&file).map_err(FileError::unreadable(path))?;
        let file = match Packing::of(&start, path)? {
            Some(packing) => compressed::unpack(&file, packing, path)?,
            None => file,
        };
        Self::read(file, path)
    }

    fn place(&self, dram: &[PageRange<Gpa>], initrd: Option<u64>) -> Result<Placement, DoesNotFit> {
        let sizes = Sizes {
            text_offset: self.text_offset(),
            kernel: self.memory_bytes(),
            initrd,
        };
        Placement::find(dram, sizes)
    }
}

impl Image {
    fn read(mut file: File, path: &Path) -> Result<Self, FileError> {
        let file_bytes = file
            .seek(io::SeekFrom::End(0))
            .map_err(FileError::unreadable(path))?;
        let start = start_of(&file).map_err(FileError::unreadable(path))?;
        let header = parse(&start).map_err(|found| not_a_kernel(path, found))?;
        match sections_end(&file) {
            Ok(end) if end <= file_bytes => {}
            Ok(end) => {
                let what = format!("it has {file_bytes} bytes, and its header promises {end}");
                return Err(FileError::damaged(path, what));
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(FileError::damaged(path, "it is cut short"));
            }
            Err(error) => return Err(FileError::unreadable(path)(error)),
        }
        Ok(Self {
            file,
            file_bytes,
            header,
        })
    }

    /// How far above a 2 MiB boundary the image goes, in bytes.
    #[must_use]
    pub fn text_offset(&self) -> u64 {
        self.header.text_offset
    }

    /// How much memory it takes from there on, in bytes: the file, and what the kernel clears.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.header.image_size.max(self.file_bytes)
    }

    /// How many bytes of it are loaded, never zero; from there on it clears its memory itself.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The decompressed image, from wherever it was left at.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// The first bytes of the file, fewer at its end.
fn start_of(file: &File) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(HEADER_BYTES);
    let mut from_zero = file;
    from_zero.rewind()?;
    from_zero
        .take(HEADER_BYTES as u64)
        .read_to_end(&mut start)?;
    Ok(start)
}

/// The header, or what the file is instead.
fn parse(start: &[u8]) -> Result<Header, &'static str> {
    let field = |offset: usize| {
        let bytes = start.get(offset..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let fields = (field(8), field(16), start.get(56..60));
    let (Some(text_offset), Some(image_size), Some(MAGIC)) = fields else {
        return Err(resemblance(start));
    };
    // Before Linux 3.17 the size was left out, and the offset meant nothing.
    let header = match image_size {
        0 => Header {
            text_offset: 0x8_0000,
            image_size: 0,
        },
        _ => Header {
            text_offset,
            image_size,
        },
    };
    if header.text_offset >= super::placement::KERNEL_ALIGNMENT {
        return Err("its header gives a load offset beyond 2 MiB");
    }
    Ok(header)
}

/// What a file that is no kernel may well be.
fn resemblance(start: &[u8]) -> &'static str {
    match start {
        [] => "it is empty",
        [0x7f, b'E', b'L', b'F', ..] => "it is an ELF file (of a vmlinux, take the Image)",
        [b'M', b'Z', ..] => "it is an EFI program, but no arm64 kernel",
        _ => "it has no arm64 kernel header",
    }
}

/// Where the last section of the file ends when the image is an EFI program too (PE/COFF), else 0.
fn sections_end(file: &File) -> io::Result<u64> {
    const SECTION_BYTES: u64 = 40;
    const MOST_SECTIONS: u64 = 16;
    let word = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at)?;
        Ok::<_, io::Error>(u64::from(u32::from_le_bytes(bytes)))
    };
    let half = |at: u64| Ok::<_, io::Error>(word(at)? & 0xffff);
    let pe = word(0x3c)?;
    if half(0)? != 0x5a4d || word(pe)? != 0x4550 {
        return Ok(0);
    }
    let sections = half(pe + 6)?.min(MOST_SECTIONS);
    let table = pe + 24 + half(pe + 20)?;
    (0..sections).try_fold(0, |end, section| {
        let entry = table + section * SECTION_BYTES;
        Ok(end.max(word(entry + 16)? + word(entry + 20)?))
    })
}

fn not_a_kernel(path: &Path, found: &'static str) -> FileError {
    FileError::Unlike {
        path: path.to_owned(),
        expected: "an arm64 kernel",
        found,
    }
}

#[cfg(test)]
mod tests;
