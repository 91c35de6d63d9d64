//! The initial RAM disk: one or more cpio archives, each plain or compressed, end to end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::FileError;

/// An initial RAM disk that is whole, as far as its format says.
///
/// Plain cpio and zstd tell their length, gzip is decoded once; the content of other formats is the
/// kernel's to judge.
#[derive(Debug)]
pub struct Initrd {
    file: File,
    bytes: u64,
}

impl Initrd {
    /// Opens and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, is empty, or ends in the middle of an archive.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::unreadable(path))?;
        let metadata = file.metadata().map_err(FileError::unreadable(path))?;
        if !metadata.is_file() {
            return Err(FileError::Unlike {
                path: path.to_owned(),
                expected: "an initial RAM disk",
                found: "it is no regular file",
            });
        }
        if metadata.len() == 0 {
            return Err(FileError::damaged(path, "it is empty"));
        }
        match walk(&mut Counted::new(BufReader::new(&file))) {
            Ok(()) => Ok(Self {
                file,
                bytes: metadata.len(),
            }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(FileError::damaged(path, "it is cut short"))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(FileError::damaged(path, error.to_string()))
            }
            Err(error) => Err(FileError::unreadable(path)(error)),
        }
    }

    /// Its length in bytes, never zero.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its content, from wherever it was left at.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Goes over the archives; an end in the middle of one is [`io::ErrorKind::UnexpectedEof`].
fn walk<R: BufRead>(input: &mut Counted<R>) -> io::Result<()> {
    loop {
        skip_zeros(input)?;
        let head = input.inner.fill_buf()?;
        match head {
            [] => return Ok(()),
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => cpio(input)?,
            [0x1f, 0x8b, ..] => gzip(input)?,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd(input)?,
            _ => return Ok(()),
        }
    }
}

/// The padding between archives.
fn skip_zeros<R: BufRead>(input: &mut Counted<R>) -> io::Result<()> {
    loop {
        let buffered = input.inner.fill_buf()?;
        let zeros = buffered.iter().take_while(|byte| **byte == 0).count();
        if zeros == 0 {
            return Ok(());
        }
        input.inner.consume(zeros);
    }
}

/// One cpio archive in the "newc" format, up to and with its trailer.
fn cpio<R: BufRead>(input: &mut Counted<R>) -> io::Result<()> {
    const NAME: usize = 94;
    const SIZE: usize = 54;
    input.position = 0;
    loop {
        let mut header = [0; 110];
        input.take_exact(&mut header)?;
        if !header.starts_with(b"07070") {
            return Err(invalid("a cpio archive has a header that is none"));
        }
        let name_bytes = hexadecimal(&header, NAME)?;
        let file_bytes = hexadecimal(&header, SIZE)?;
        // Enough of the name to know the trailer by.
        let mut name = [0; 11];
        let known = name_bytes.min(name.len() as u64);
        let known = usize::try_from(known).unwrap_or(name.len());
        if let Some(name) = name.get_mut(..known) {
            input.take_exact(name)?;
        }
        input.skip(name_bytes.saturating_sub(known as u64))?;
        input.align()?;
        if &name == b"TRAILER!!!\0" {
            return Ok(());
        }
        input.skip(file_bytes)?;
        input.align()?;
    }
}

/// The number in the eight hexadecimal digits at `offset`.
fn hexadecimal(header: &[u8; 110], offset: usize) -> io::Result<u64> {
    header
        .get(offset..)
        .and_then(|tail| tail.get(..8))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| invalid("a cpio archive has a header with a bad number"))
}

/// One gzip member.
fn gzip<R: BufRead>(input: &mut Counted<R>) -> io::Result<()> {
    let mut member = flate2::bufread::GzDecoder::new(&mut input.inner);
    match io::copy(&mut member, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(error),
        Err(_) => Err(invalid("its gzip data do not decode")),
    }
}

/// One zstd frame (RFC 8878, section 3.1.1), by the lengths of its blocks.
fn zstd<R: BufRead>(input: &mut Counted<R>) -> io::Result<()> {
    let [_, _, _, _, descriptor] = input.take_array()?;
    let single_segment = descriptor & 0x20 != 0;
    let window = u64::from(!single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content_size = match descriptor >> 6 {
        0 => u64::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    input.skip(window + dictionary + content_size)?;
    loop {
        let [low, middle, high] = input.take_array()?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let bytes = u64::from(header >> 3);
        match header >> 1 & 3 {
            0 | 2 => input.skip(bytes)?,
            1 => input.skip(1)?,
            _ => return Err(invalid("its zstd data do not decode")),
        }
        if header & 1 != 0 {
            break;
        }
    }
    let checksum = if descriptor & 4 != 0 { 4 } else { 0 };
    input.skip(checksum)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A reader that knows how far into a cpio archive it has come, for the padding to four bytes.
struct Counted<R> {
    inner: R,
    position: u64,
}

impl<R: BufRead> Counted<R> {
    fn new(inner: R) -> Self {
        Self { inner, position: 0 }
    }

    fn take_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(into)?;
        self.position = self.position.saturating_add(into.len() as u64);
        Ok(())
    }

    fn take_array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.take_exact(&mut array)?;
        Ok(array)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink())?;
        if skipped < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position = self.position.saturating_add(bytes);
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let beyond = self.position % 4;
        self.skip((4 - beyond) % 4)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(bytes: &[u8]) -> io::Result<()> {
        walk(&mut Counted::new(bytes))
    }

    fn entry(name: &str, content: &[u8]) -> Vec<u8> {
        let mut entry = format!(
            "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            1,
            0o100_644,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        )
        .into_bytes();
        entry.extend_from_slice(name.as_bytes());
        entry.push(0);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry.extend_from_slice(content);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry
    }

    fn archive() -> Vec<u8> {
        let mut archive = entry("init", b"#!/bin/sh\n");
        archive.extend(entry("a/very/long/name", &[7; 4099]));
        archive.extend(entry("TRAILER!!!", b""));
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive
    }

    fn gzipped(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// One frame of a raw block and a run-length block, with a checksum field.
    fn zstd_frame() -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x00];
        frame.extend((5u32 << 3).to_le_bytes()[..3].iter());
        frame.extend(b"hello");
        frame.extend((1000u32 << 3 | 1 << 1 | 1).to_le_bytes()[..3].iter());
        frame.push(b'x');
        frame.extend([0; 4]);
        frame
    }

    #[test]
    fn whole_archives_are_good_one_after_the_other() {
        let mut both = archive();
        both.extend(gzipped(&archive()));
        both.extend(zstd_frame());
        both.extend(archive());
        check(&both).unwrap();
    }

    #[test]
    fn an_archive_that_is_cut_short_anywhere_is_noticed() {
        let whole = entry("init", b"#!/bin/sh\n");
        for end in [6, 100, 112, 120, whole.len(), whole.len() + 50] {
            let error = check(&archive()[..end]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
        for compressed in [gzipped(&archive()), zstd_frame()] {
            for end in 4..compressed.len() {
                let error = check(&compressed[..end]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}");
            }
        }
    }

    #[test]
    fn damage_inside_is_noticed_where_the_format_tells() {
        let mut damaged = archive();
        damaged[54] = b'?';
        assert_eq!(
            check(&damaged).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let mut damaged = gzipped(&archive());
        let middle = damaged.len() - 6;
        damaged[middle] ^= 0x55;
        assert_eq!(
            check(&damaged).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn formats_that_ccvm_does_not_know_are_left_to_the_kernel() {
        check(b"\xfd7zXZ\0 and so on").unwrap();
    }

    #[test]
    fn an_empty_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Initrd::open(file.path()).unwrap_err();
        assert!(error.to_string().ends_with("it is empty"));
    }
}
