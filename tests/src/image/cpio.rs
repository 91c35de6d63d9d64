//! A writer for cpio archives in the "newc" format (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fmt::Write as _;

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction; everything in it belongs to root.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder; its parents must have been added before.
    #[must_use]
    pub fn folder(mut self, path: &str) -> Self {
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
        self
    }

    /// Adds a file that anybody may read.
    #[must_use]
    pub fn file(mut self, path: &str, content: &[u8]) -> Self {
        self.entry(path, FILE | 0o644, (0, 0), content);
        self
    }

    /// Adds a file that anybody may run.
    #[must_use]
    pub fn program(mut self, path: &str, content: &[u8]) -> Self {
        self.entry(path, FILE | 0o755, (0, 0), content);
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entry(path, LINK | 0o777, (0, 0), target.as_bytes());
        self
    }

    /// Adds a character device.
    #[must_use]
    pub fn character_device(mut self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
        self
    }

    /// The finished archive. Archives may be laid end to end: a kernel unpacks them all.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = content.len();
        let name_size = path.len() + 1;
        let (major, minor) = device;
        let mut header = String::from("070701");
        // inode, mode, uid, gid, links, mtime
        for field in [self.entries, mode, 0, 0, 1, 0] {
            // Writing to a String does not fail.
            let _ = write!(header, "{field:08x}");
        }
        // A file of 4 GiB or more has no place in this format; tests hold none.
        let _ = write!(header, "{size:08x}{:08x}{:08x}{major:08x}{minor:08x}", 0, 0);
        let _ = write!(header, "{name_size:08x}{:08x}", 0);
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_format_says() {
        let bytes = Archive::new().file("abc", b"hello").finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081a4", "the mode");
        assert_eq!(&bytes[54..62], b"00000005", "the size of the content");
        assert_eq!(
            &bytes[94..102],
            b"00000004",
            "the size of the name and its zero byte"
        );
        assert_eq!(&bytes[110..114], b"abc\0");
        assert_eq!(
            &bytes[116..124],
            b"hello\0\0\0",
            "content starts and ends on 4 bytes"
        );
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
    }
}
