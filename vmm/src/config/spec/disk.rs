//! An emulated disk.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// A disk that a file of the host is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The file, or a block device.
    pub path: PathBuf,
    /// What is in it.
    pub format: DiskFormat,
    /// Who says so.
    pub format_source: FormatSource,
    /// Whether the guest may write.
    pub access: DiskAccess,
    /// What the guest reads as its serial number.
    pub serial: Option<DiskSerial>,
    /// Queues, each with a thread of the host that serves it.
    pub queues: NonZeroU16,
    /// Whether the host's page cache comes in between.
    pub cache: DiskCache,
    /// The image that a qcow2 image is written over. The name in the image itself is never followed.
    pub backing: Option<BackingSpec>,
}

/// What a qcow2 image is written over: read, and never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingSpec {
    /// The file, or a block device.
    pub path: PathBuf,
    /// What is in it.
    pub format: DiskFormat,
}

/// What the file of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes, as they are.
    Raw,
    /// QEMU's format that grows, versions 2 and 3.
    Qcow2,
}

/// From where the format of a disk is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatSource {
    /// The config says it.
    Config,
    /// The name of the file.
    Name,
}

impl DiskFormat {
    /// The format of a file that has this name and that nothing more is known of. What is in the file is
    /// never asked: the guest writes a raw image, and could make it look like anything.
    #[must_use]
    pub fn by_name(path: &Path) -> Self {
        match path.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("qcow2") => Self::Qcow2,
            Some(_) | None => Self::Raw,
        }
    }

    /// As in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// What the guest may do with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskAccess {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// Where a disk's data is on its way between guest and storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskCache {
    /// Nowhere: `O_DIRECT`.
    Direct,
    /// In the host's page cache.
    Host,
}

/// A serial number: 1 to 20 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSerial(String);

impl DiskSerial {
    /// The most bytes of one (virtio 1.2, 5.2.6).
    pub const MOST_BYTES: usize = 20;

    /// `text`, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let fits = (1..=Self::MOST_BYTES).contains(&text.len());
        (printable && fits).then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format_and_raw_is_the_rest() {
        for (name, format) in [
            ("disk.qcow2", DiskFormat::Qcow2),
            ("DISK.QCOW2", DiskFormat::Qcow2),
            ("disk.img", DiskFormat::Raw),
            ("qcow2", DiskFormat::Raw),
            ("/dev/vg/root", DiskFormat::Raw),
        ] {
            assert_eq!(DiskFormat::by_name(Path::new(name)), format, "{name}");
        }
    }
}
