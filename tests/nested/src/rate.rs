//! How fast a file is read or written piece by piece: a disk, a device's node, or what a daemon of the host shares.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::OFlags;

use crate::timing;

/// What direct reads and writes want of their memory.
const PAGE: usize = 4096;
/// What is written: no byte that a terminal takes for more than a letter.
const LETTER: u8 = b'x';

/// Which way the bytes go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Out of the file.
    Read,
    /// Into the file.
    Write,
}

impl FromStr for Way {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => bail!("`{text}` is neither read nor write"),
        }
    }
}

/// Reads or writes `path` by pieces of so many bytes, again and again from its start where it has an end, and
/// reports KiB per second and microseconds for a piece.
pub(crate) fn of_file(name: &str, way: Way, path: &str, piece: usize) -> anyhow::Result<()> {
    let mut open = Open::new(way, path)?;
    let mut memory = vec![LETTER; piece + PAGE];
    let start = memory.as_ptr().align_offset(PAGE);
    let aligned = memory.get_mut(start..start + piece);
    let aligned = aligned.context("the memory cannot be aligned")?;
    let rate = timing::rate(|| open.move_piece(aligned))?;
    println!(
        "{name}_kib_s={:.2} {name}_us={:.2}",
        rate.kib_per_second(),
        micros(rate.each())
    );
    Ok(())
}

/// In microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

struct Open {
    way: Way,
    file: File,
    /// What a character device has not.
    length: Option<u64>,
    position: u64,
}

impl Open {
    /// Past the page cache, where there is one.
    fn new(way: Way, path: &str) -> anyhow::Result<Self> {
        let kind = std::fs::metadata(path).with_context(|| format!("no {path}"))?;
        let endless = kind.file_type().is_char_device();
        let mut options = OpenOptions::new();
        match way {
            Way::Read => options.read(true),
            Way::Write => options.write(true),
        };
        let mut flags = OFlags::NOCTTY;
        if !endless {
            flags |= OFlags::DIRECT;
        }
        options.custom_flags(i32::try_from(flags.bits())?);
        let mut file = options
            .open(path)
            .with_context(|| format!("cannot open {path}"))?;
        let length = if endless {
            None
        } else {
            Some(file.seek(SeekFrom::End(0))?)
        };
        Ok(Self {
            way,
            file,
            position: length.unwrap_or(0),
            length,
        })
    }

    /// Moves at most a piece; says how many bytes it was.
    fn move_piece(&mut self, piece: &mut [u8]) -> anyhow::Result<usize> {
        let end = self.position + piece.len() as u64;
        if self.length.is_some_and(|length| end > length) {
            self.position = self.file.seek(SeekFrom::Start(0))?;
        }
        let moved = match self.way {
            Way::Read => self.file.read(piece)?,
            Way::Write => self.file.write(piece)?,
        };
        ensure!(moved > 0, "the file has less than a piece");
        self.position += moved as u64;
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(way: Way, length: u64) -> Open {
        let memory = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(memory);
        file.set_len(length).unwrap();
        Open {
            way,
            file,
            length: Some(length),
            position: length,
        }
    }

    #[test]
    fn a_file_is_begun_again_where_no_piece_is_left() {
        for way in [Way::Read, Way::Write] {
            let mut open = open(way, 10);
            let moved: Vec<u64> = (0..5)
                .map(|_| {
                    assert_eq!(open.move_piece(&mut [LETTER; 4]).unwrap(), 4);
                    open.position
                })
                .collect();
            assert_eq!(moved, [4, 8, 4, 8, 4]);
            assert_eq!(open.file.metadata().unwrap().len(), 10);
        }
    }

    #[test]
    fn a_file_of_less_than_a_piece_is_refused() {
        assert!(open(Way::Read, 0).move_piece(&mut [0; 4]).is_err());
    }
}
