//! The kernel file of x86-64 Linux, in one of its forms, or a guest that is a file by itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use iommu::{Gpa, PageRange};

use super::bzimage::{self, Header};
use super::placement::{self, Placement};
use super::vmlinux::{self, Vmlinux};
use crate::boot::igvm::{Igvm, MOST_BYTES, Told};
use crate::boot::{DoesNotFit, FileError, Kernel, Unsuitable};
use crate::plan::VmPlan;
use crate::platform::Platform;

/// Enough of a file to know what it is.
const START_BYTES: u64 = 1024;

/// A kernel.
#[derive(Debug)]
pub struct Image {
    file: File,
    bytes: u64,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// A kernel, which ccvm has to tell of its machine.
    Linux(Linux),
    /// A whole guest of SEV-SNP.
    Igvm(Box<Igvm>),
}

/// How a kernel is loaded and entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Linux {
    /// The form that distributions ship: it decompresses itself.
    BzImage(Header),
    /// The kernel proper.
    Vmlinux(Vmlinux),
}

impl Kernel for Image {
    type Placement = Placement;

    const COMMAND_LINE_BYTES: usize = 2048;

    const FORMS: &'static str = "name a bzImage (the vmlinuz of a distribution), a vmlinux with a PVH entry, or for the platform snp an IGVM file";

    fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::unreadable(path))?;
        let metadata = file.metadata().map_err(FileError::unreadable(path))?;
        if !metadata.is_file() {
            return Err(not_a_kernel(path, "it is no regular file"));
        }
        let mut start = Vec::new();
        (&file)
            .take(START_BYTES)
            .read_to_end(&mut start)
            .map_err(FileError::unreadable(path))?;
        let bytes = metadata.len();
        let form = if Header::is_there(&start) {
            let header = Header::read(&file, bytes).map_err(|why| match why {
                bzimage::NotBootable::Unlike(found) => not_a_kernel(path, found),
                bzimage::NotBootable::CutShort => FileError::damaged(path, "it is cut short"),
                bzimage::NotBootable::Unreadable(error) => FileError::unreadable(path)(error),
            })?;
            Form::Linux(Linux::BzImage(header))
        } else if Vmlinux::is_there(&start) {
            let vmlinux = Vmlinux::read(&file, bytes).map_err(|why| match why {
                vmlinux::NotBootable::Unlike(found) => not_a_kernel(path, found),
                vmlinux::NotBootable::Damaged(what) => FileError::damaged(path, what),
                vmlinux::NotBootable::Unreadable(error) => FileError::unreadable(path)(error),
            })?;
            Form::Linux(Linux::Vmlinux(vmlinux))
        } else if Igvm::is_there(&start) {
            Form::Igvm(Box::new(open_igvm(path, &file, bytes, start)?))
        } else {
            return Err(not_a_kernel(path, resemblance(&start)));
        };
        Ok(Self { file, bytes, form })
    }

    fn suits(&self, platform: Platform) -> Result<(), Unsuitable> {
        match (&self.form, platform) {
            (Form::Linux(Linux::Vmlinux(_)), Platform::Snp) => Err(Unsuitable {
                why: "an SNP guest cannot boot a vmlinux: that is entered in 32-bit mode, where no memory is encrypted",
                help: "name a bzImage (the vmlinuz of a distribution)",
            }),
            (Form::Linux(Linux::Vmlinux(_)), Platform::Tdx) => Err(Unsuitable {
                why: "the firmware of a TD starts no vmlinux by PVH",
                help: "name a bzImage (the vmlinuz of a distribution)",
            }),
            (Form::Igvm(_), platform) if platform != Platform::Snp => Err(Unsuitable {
                why: "an IGVM file is a guest of SEV-SNP, and of no other platform of ccvm",
                help: "set `platform = \"snp\"`, or name a bzImage (the vmlinuz of a distribution)",
            }),
            _ => Ok(()),
        }
    }

    fn takes_initrd(&self) -> bool {
        self.igvm().is_none()
    }

    fn takes_command_line(&self) -> bool {
        self.igvm().is_none_or(Igvm::takes_command_line)
    }

    fn can_be_told(&self, plan: &VmPlan, cmdline: &str) -> Result<(), String> {
        let Some(igvm) = self.igvm() else {
            return Ok(());
        };
        let told = Told::of(plan, cmdline);
        for piece in igvm.pieces() {
            let bytes = igvm.bytes(piece, &told);
            bytes.map_err(|no_room| no_room.to_string())?;
        }
        Ok(())
    }

    fn file_bytes(&self) -> u64 {
        self.bytes
    }

    fn place(&self, dram: &[PageRange<Gpa>], initrd: Option<u64>) -> Result<Placement, DoesNotFit> {
        match &self.form {
            Form::Linux(linux) => placement::find(dram, linux, initrd).map(Placement::Linux),
            Form::Igvm(igvm) => placement::where_it_says(dram, igvm).map(|()| Placement::Igvm),
        }
    }
}

impl Image {
    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The guest, where the file is one by itself.
    #[must_use]
    pub fn igvm(&self) -> Option<&Igvm> {
        match &self.form {
            Form::Igvm(igvm) => Some(igvm),
            Form::Linux(_) => None,
        }
    }
}

/// Reads and checks the rest of a file that begins with `start`.
fn open_igvm(path: &Path, file: &File, bytes: u64, start: Vec<u8>) -> Result<Igvm, FileError> {
    if bytes > MOST_BYTES {
        return Err(FileError::damaged(path, "it has more than 512 MiB"));
    }
    let mut whole = start;
    let rest = file.take(MOST_BYTES).read_to_end(&mut whole);
    rest.map_err(FileError::unreadable(path))?;
    Igvm::parse(whole).map_err(|why| match why.is_damage() {
        true => FileError::damaged(path, why.to_string()),
        false => FileError::Refused {
            path: path.to_owned(),
            why: why.to_string(),
        },
    })
}

/// What a file that is no kernel may well be.
fn resemblance(start: &[u8]) -> &'static str {
    match start {
        [] => "it is empty",
        [0x1f, 0x8b, ..] => "it is compressed by gzip (an arm64 kernel may be; decompress it)",
        _ if start.get(56..60) == Some(b"ARM\x64") => "it is an arm64 kernel",
        [b'M', b'Z', _, _, b'z', b'i', b'm', b'g', ..] => "it is an EFI program of another machine",
        _ => "it has no x86-64 kernel header",
    }
}

fn not_a_kernel(path: &Path, found: &'static str) -> FileError {
    FileError::Unlike {
        path: path.to_owned(),
        expected: "an x86-64 kernel",
        found,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::super::bzimage::tests::header_bytes;
    use super::super::vmlinux::tests::{elf, notes};
    use super::*;

    fn open(bytes: &[u8]) -> Result<Image, FileError> {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Image::open(file.path())
    }

    fn bzimage() -> Vec<u8> {
        let mut bytes = header_bytes().to_vec();
        bytes.resize(2 * 512 + 32, 0);
        bytes
    }

    #[test]
    fn both_forms_are_told_apart() {
        assert!(matches!(
            open(&bzimage()).unwrap().form,
            Form::Linux(Linux::BzImage(_))
        ));
        let vmlinux = open(&elf(&notes())).unwrap();
        assert!(matches!(vmlinux.form, Form::Linux(Linux::Vmlinux(_))));
    }

    #[test]
    fn an_snp_guest_boots_a_bzimage_only() {
        let bzimage = open(&bzimage()).unwrap();
        assert!(bzimage.suits(Platform::Snp).is_ok());
        let vmlinux = open(&elf(&notes())).unwrap();
        assert!(vmlinux.suits(Platform::Snp).is_err());
        assert!(vmlinux.suits(Platform::None).is_ok());
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let mut arm64 = vec![0; 64];
        arm64[56..60].copy_from_slice(b"ARM\x64");
        let cases: [(&[u8], &str); 4] = [
            (b"", "it is empty"),
            (&arm64, "it is an arm64 kernel"),
            (b"#!/bin/sh\n", "it has no x86-64 kernel header"),
            (&elf(&[]), "it has no PVH entry (CONFIG_PVH)"),
        ];
        for (bytes, expected) in cases {
            match open(bytes) {
                Err(FileError::Unlike { found, .. }) => assert_eq!(found, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_kernel_that_is_cut_short_is_damaged() {
        let whole = bzimage();
        let cut = open(&whole[..whole.len() - 1]);
        assert!(matches!(cut, Err(FileError::Damaged { .. })));
        assert!(matches!(
            open(&whole[..0x250]),
            Err(FileError::Damaged { .. })
        ));
    }
}
