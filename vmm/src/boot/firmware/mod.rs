//! Firmware that a TD starts from: an image whose end lies at 4 GiB, and which says by itself what belongs
//! where ([`tdvf`]).
//!
//! ```text
//!   file                                       0 ───────────────────────────── length
//!   guest memory                 4 GiB - length ───────────────────────────── 4 GiB
//!                                     │ code, variables ...  │ GUIDed table │ reset vector │
//! ```

pub mod fit;
mod guid_table;
pub mod tdvf;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use iommu::{Gpa, PAGE_SIZE, PageRange};

use super::FileError;
use tdvf::Section;

/// Above it are the local APICs: firmware ends at 4 GiB and begins behind them.
const MOST_BYTES: u64 = 16 << 20;

/// Where it ends.
const END: u64 = 4 << 30;

/// A firmware image that is whole, as far as it says what it is.
#[derive(Debug)]
pub struct Firmware {
    image: Vec<u8>,
    range: PageRange<Gpa>,
    sections: Vec<Section>,
}

impl Firmware {
    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or does not say what belongs where.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::unreadable(path))?;
        let metadata = file.metadata().map_err(FileError::unreadable(path))?;
        let unlike = |found| FileError::Unlike {
            path: path.to_owned(),
            expected: "firmware for TDs",
            found,
        };
        if !metadata.is_file() {
            return Err(unlike("it is no regular file"));
        }
        let mut image = Vec::new();
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut image);
        read.map_err(FileError::unreadable(path))?;
        let bytes = image.len() as u64;
        if bytes > MOST_BYTES {
            return Err(unlike("it has more than 16 MiB"));
        }
        if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(unlike("it is not made of whole pages"));
        }
        let sections = tdvf::sections(&image).map_err(|error| match error {
            tdvf::NotTdvf::Absent => unlike("it has no metadata of a TDVF (OVMF, td-shim)"),
            other => FileError::damaged(path, other.to_string()),
        })?;
        let range = PageRange::new(Gpa::new(END - bytes), bytes);
        let range = range.map_err(|error| FileError::damaged(path, error.to_string()))?;
        Ok(Self {
            image,
            range,
            sections,
        })
    }

    /// Where it lies in guest memory.
    #[must_use]
    pub fn range(&self) -> PageRange<Gpa> {
        self.range
    }

    /// Where it finds what it is told.
    #[must_use]
    pub fn hob(&self) -> Gpa {
        let mut sections = self.sections.iter();
        let hob = sections.find(|section| section.kind == tdvf::Kind::Hob);
        // One is there: it was looked for when the firmware was opened.
        hob.map_or(Gpa::new(0), |hob| hob.range.start())
    }

    /// What it says of itself, in its own order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The content that a section has in the file.
    #[must_use]
    pub fn content(&self, section: &Section) -> &[u8] {
        // Checked when it was opened.
        self.image.get(section.file.clone()).unwrap_or_default()
    }
}
