//! A firmware in the memory of a VM: whether all that it wants is there.
//!
//! ```text
//!   DRAM  │ ... │ temporary │ TD HOB │ parameters │ payload │ ... │        firmware  │ variables │ code │ 4 GiB
//! ```

use iommu::{Gpa, PageRange};

use super::Firmware;
use super::tdvf::{Kind, Section};

/// What of a firmware goes where.
#[derive(Debug, Clone)]
pub struct Fit<'a> {
    /// What is part of the launch, in the firmware's own order, which is that of the measurement.
    pub loaded: Vec<&'a Section>,
    /// Where the firmware finds what it is told.
    pub hob: PageRange<Gpa>,
    /// Where it finds a kernel to start.
    pub kernel: PageRange<Gpa>,
    /// Where it finds the kernel's command line.
    pub cmdline: PageRange<Gpa>,
}

/// Why a firmware starts no kernel in this VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It finds its kernel by itself, where this machine has none.
    #[error(
        "has no place for a kernel and its command line (sections Payload and PayloadParam), by which alone \
         ccvm can hand it one"
    )]
    NoPayload,
    /// It wants memory that is not there.
    #[error("wants memory at {0}, where the VM has none")]
    NoMemory(PageRange<Gpa>),
    /// The kernel is too large for it.
    #[error("has room for a kernel of {room} bytes, and this one has {bytes}")]
    Kernel {
        /// Bytes of the kernel.
        bytes: u64,
        /// Bytes that the firmware has room for.
        room: u64,
    },
    /// The command line is too long for it.
    #[error("has room for a command line of {room} bytes, and this one has {bytes}")]
    CommandLine {
        /// Bytes of the command line, with the one that ends it.
        bytes: u64,
        /// Bytes that the firmware has room for.
        room: u64,
    },
}

impl Firmware {
    /// What of it goes where in a VM with this DRAM, for a kernel and a command line of so many bytes.
    ///
    /// # Errors
    /// When it does not start a kernel, or there is no room.
    pub fn fit(
        &self,
        dram: &[PageRange<Gpa>],
        kernel_bytes: u64,
        cmdline_bytes: u64,
    ) -> Result<Fit<'_>, Misfit> {
        let of = |kind| {
            let mut sections = self.sections.iter();
            sections.find(|section| section.kind == kind)
        };
        let (Some(hob), Some(kernel), Some(cmdline)) = (
            of(Kind::Hob),
            of(Kind::Payload),
            of(Kind::PayloadParameters),
        ) else {
            return Err(Misfit::NoPayload);
        };
        for section in &self.sections {
            let own = std::slice::from_ref(&self.range);
            let mut memory = dram.iter().chain(own);
            if !memory.any(|memory| memory.covers(section.range)) {
                return Err(Misfit::NoMemory(section.range));
            }
        }
        if kernel_bytes > kernel.range.bytes() {
            return Err(Misfit::Kernel {
                bytes: kernel_bytes,
                room: kernel.range.bytes(),
            });
        }
        if cmdline_bytes > cmdline.range.bytes() {
            return Err(Misfit::CommandLine {
                bytes: cmdline_bytes,
                room: cmdline.range.bytes(),
            });
        }
        let sections = self.sections.iter();
        Ok(Fit {
            loaded: sections
                .filter(|section| section.kind.is_loaded())
                .collect(),
            hob: hob.range,
            kernel: kernel.range,
            cmdline: cmdline.range,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tdvf::tests::{Raw, SHIM, image};
    use super::*;
    use crate::boot::FileError;

    fn open(bytes: &[u8]) -> Result<Firmware, FileError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Firmware::open(file.path())
    }

    fn firmware(change: impl FnOnce(&mut Vec<Raw>)) -> Firmware {
        let mut raw = SHIM.to_vec();
        change(&mut raw);
        open(&image(&raw)).unwrap()
    }

    fn fitted(firmware: &Firmware, kernel: u64, cmdline: u64) -> Result<Fit<'_>, Misfit> {
        let dram = [PageRange::new(Gpa::new(0), 256 << 20).unwrap()];
        firmware.fit(&dram, kernel, cmdline)
    }

    #[test]
    fn a_firmware_that_takes_a_kernel_fits() {
        let firmware = firmware(|_| {});
        let fit = fitted(&firmware, 0x200_0000, 0x1000).unwrap();
        assert_eq!(fit.loaded.len(), 6);
        assert_eq!(fit.hob.start(), Gpa::new(0x80_0000));
        assert_eq!(fit.kernel.start(), Gpa::new(0x100_0000));
        assert_eq!(fit.cmdline.start(), Gpa::new(0x90_0000));
        assert_eq!(firmware.range().start(), Gpa::new(0xffff_e000));
        let code = firmware.content(fit.loaded[0]);
        assert_eq!(code.len(), 0x1000);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let whole = firmware(|_| {});
        let error = |kernel, cmdline| fitted(&whole, kernel, cmdline).unwrap_err();
        assert!(matches!(error(0x200_0001, 1), Misfit::Kernel { .. }));
        assert!(matches!(error(1, 0x1001), Misfit::CommandLine { .. }));
        let finds_by_itself = firmware(|raw| raw.truncate(4));
        assert_eq!(
            fitted(&finds_by_itself, 1, 1).unwrap_err(),
            Misfit::NoPayload
        );
        let beyond = firmware(|raw| raw[3].2 = 0x4000_0000);
        let missing = fitted(&beyond, 1, 1).unwrap_err();
        assert!(matches!(missing, Misfit::NoMemory(_)), "{missing}");
    }

    #[test]
    fn permanent_memory_is_no_part_of_the_launch() {
        let firmware = firmware(|raw| raw.push((0, 0, 0x500_0000, 0x1000, 4, 0)));
        assert_eq!(fitted(&firmware, 1, 1).unwrap().loaded.len(), 6);
    }

    #[test]
    fn a_file_that_is_no_firmware_is_told_from_a_damaged_one() {
        let unlike = |bytes: &[u8]| matches!(open(bytes), Err(FileError::Unlike { .. }));
        assert!(unlike(b""));
        assert!(unlike(&[0; 100]));
        assert!(unlike(&[0; 0x2000]));
        assert!(unlike(&vec![0; (16 << 20) + 1]));
        let mut raw = SHIM;
        raw[1].2 = 0xffff_f000;
        assert!(matches!(open(&image(&raw)), Err(FileError::Damaged { .. })));
    }
}
