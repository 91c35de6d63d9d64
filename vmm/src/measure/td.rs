//! What a TD is measured as: the sections that a launch loads, in the firmware's own order. Of each page it
//! counts that it is there; what is in it counts where the firmware says so.

use std::io;

use iommu::addr::RangeError;
use iommu::{Gpa, PAGE_SIZE};

use super::digest::Digest;
use super::tdx::Mrtd;
use crate::boot::BootFiles;
use crate::boot::Kernel as _;
use crate::boot::firmware::Firmware;
use crate::boot::firmware::fit::{Fit, Misfit};
use crate::boot::firmware::tdvf::{Kind, Section};
use crate::boot::segment::{Segment, SegmentKind};
use crate::boot::x86_64::Image;
use crate::plan::VmPlan;

/// Why the measurement of a TD cannot be foretold.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    /// The firmware has the hand-off blocks measured.
    #[error(
        "the firmware has what it is told of the machine measured, which differs between versions of ccvm"
    )]
    HandOff,
    /// It would be started with nothing.
    #[error("the firmware {0}")]
    Misfit(#[from] Misfit),
    /// A section of it lies where nothing does.
    #[error("the firmware has a section where none can be: {0}")]
    Range(#[from] RangeError),
    /// A file that has been read cannot be read again.
    #[error("cannot read what is measured any more: {0}")]
    Read(#[from] io::Error),
}

/// The sections of a TD's launch.
pub(super) struct Content<'a> {
    fit: Fit<'a>,
    firmware: &'a Firmware,
    files: &'a BootFiles<Image>,
    /// With the byte that ends it.
    cmdline: Vec<u8>,
}

impl<'a> Content<'a> {
    /// What a launch of `plan` loads of these files.
    pub(super) fn new(
        plan: &VmPlan,
        files: &'a BootFiles<Image>,
        firmware: &'a Firmware,
    ) -> Result<Self, Unknown> {
        let mut cmdline = files.cmdline.clone().into_bytes();
        cmdline.push(0);
        let bytes = files.kernel.file_bytes();
        let fit = firmware.fit(plan.dram(), bytes, cmdline.len() as u64)?;
        Ok(Self {
            fit,
            firmware,
            files,
            cmdline,
        })
    }

    /// MRTD.
    pub(super) fn measurement(&self) -> Result<Digest, Unknown> {
        let mut mrtd = Mrtd::default();
        for section in &self.fit.loaded {
            let content = self.measured(section)?;
            for number in 0..section.range.pages() {
                // Within the range, and so below 2^64.
                let at = Gpa::new(section.range.start().raw() + number * PAGE_SIZE);
                mrtd.page_add(at);
                if section.measured {
                    let mut page = [0; 4096];
                    if let Some(content) = content {
                        content.read_page(at, &mut page)?;
                    }
                    mrtd.extend(at, &page);
                }
            }
        }
        Ok(mrtd.finalize())
    }

    /// What is measured by its content, by ascending addresses.
    pub(super) fn segments(&self) -> Result<Vec<Segment<'_>>, Unknown> {
        let mut segments = Vec::new();
        for section in &self.fit.loaded {
            segments.extend(self.measured(section)?);
        }
        segments.sort_by_key(Segment::start);
        Ok(segments)
    }

    /// The content of a section that is measured by it; `None` for zeros as well.
    fn measured(&self, section: &Section) -> Result<Option<Segment<'_>>, Unknown> {
        let start = section.range.start();
        let own = self.firmware.content(section);
        let segment = match section.kind {
            _ if !section.measured => return Ok(None),
            Kind::Hob => return Err(Unknown::HandOff),
            Kind::Payload => Segment::of_file(
                SegmentKind::Kernel,
                start,
                self.files.kernel.file(),
                self.files.kernel.file_bytes(),
            )?,
            Kind::PayloadParameters => {
                Segment::of_bytes(SegmentKind::CommandLine, start, &self.cmdline)?
            }
            Kind::Code | Kind::Variables | Kind::Temporary | Kind::Permanent if own.is_empty() => {
                return Ok(None);
            }
            Kind::Code | Kind::Variables | Kind::Temporary | Kind::Permanent => {
                Segment::of_bytes(SegmentKind::Firmware, start, own)?
            }
        };
        Ok(Some(segment))
    }
}
