//! What an SNP guest is measured as that boots a kernel: all of its DRAM as its launch lays it out, then its
//! processors.
//!
//! ```text
//!   plan, files ─► boot: load_program ─► memory of this process ─► layout ─► LaunchDigest ─► VMSA of each processor
//! ```
//! The pages of CPUID and of secrets count by their places alone. What is left of the host is the address bit that
//! says encrypted: page tables have it.

use iommu::{Gpa, PAGE_SIZE, PageRange};
use kvm::snp::Content;
use sha2::{Digest as _, Sha256};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::digest::Digest;
use super::expected::MeasuredSegment;
use super::snp::{ContentFree, LaunchDigest, Vmsa};
use crate::boot::BootFiles;
use crate::boot::segment::{Page, SegmentKind};
use crate::boot::x86_64::program::{Extras, load_program};
use crate::boot::x86_64::{Encrypted, Image, LinuxPlacement, LoadError, Loaded, Start};
use crate::plan::VmPlan;
use crate::platform::snp::{LayoutError, SpecialPages, layout};

/// Why the launch digest of a kernel cannot be foretold.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    /// This process has no room for the guest's addresses.
    #[error("there is no room to lay the guest's memory out")]
    Room(#[from] vm_memory::mmap::FromRangesError),
    /// Something does not fit, or cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A bug in the placement.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What was laid out cannot be read: a bug.
    #[error("cannot read what was laid out at {0}")]
    Unreadable(Gpa),
    /// It would be entered in 32-bit mode.
    #[error("the kernel is not entered in 64-bit mode, as an SNP guest has to be")]
    Entry,
}

/// A guest as its launch lays it out, in memory of this process.
pub(super) struct Program<'a> {
    plan: &'a VmPlan,
    placement: LinuxPlacement,
    memory: GuestMemoryMmap,
    loaded: Loaded,
}

impl<'a> Program<'a> {
    /// Lays out the kernel of `files`, for a host on which address bit `bit` says encrypted.
    pub(super) fn new(
        plan: &'a VmPlan,
        files: &BootFiles<Image>,
        placement: LinuxPlacement,
        bit: u8,
    ) -> Result<Self, Unknown> {
        let ranges = plan.dram().iter();
        // Nothing is resident of it but what is written.
        let ranges = ranges.map(|range| {
            let bytes = usize::try_from(range.bytes()).unwrap_or(usize::MAX);
            (GuestAddress(range.start().raw()), bytes)
        });
        let memory = GuestMemoryMmap::from_ranges(&ranges.collect::<Vec<_>>())?;
        // What the host's processors are is not measured.
        let encrypted = Encrypted {
            bit,
            cpuid: &[0; 4096],
        };
        let extras = Extras::Encrypted(&encrypted);
        let loaded = load_program(&memory, plan, files, placement, extras)?;
        Ok(Self {
            plan,
            placement,
            memory,
            loaded,
        })
    }

    /// The launch digest.
    pub(super) fn launch_digest(&self) -> Result<Digest, Unknown> {
        let Start::Long(state) = self.loaded.start else {
            return Err(Unknown::Entry);
        };
        let dram = self.plan.dram();
        let pieces = layout(dram, &self.loaded.parts, SpecialPages::OF_LINUX)?;
        let mut digest = LaunchDigest::default();
        for (range, content) in pieces {
            let kind = match content {
                Content::Copied => {
                    self.each_page(range, |at, page| digest.normal(at, page))?;
                    continue;
                }
                Content::Zero => ContentFree::Zero,
                Content::Unmeasured => ContentFree::Unmeasured,
                Content::Secrets => ContentFree::Secrets,
                Content::Cpuid => ContentFree::Cpuid,
            };
            digest.content_free(range, kind);
        }
        digest.vmsa_page(&Vmsa::in_long_mode(state));
        for _ in 1..self.plan.vcpus() {
            digest.vmsa_page(&Vmsa::untold());
        }
        Ok(digest.digest())
    }

    /// What was loaded, by ascending addresses.
    pub(super) fn segments(&self) -> Result<Vec<MeasuredSegment>, Unknown> {
        let parts = self.loaded.parts.iter();
        let mut segments = parts
            .filter(|(_, bytes)| *bytes != 0)
            .map(|&(start, bytes)| self.segment(start, bytes))
            .collect::<Result<Vec<_>, _>>()?;
        segments.sort_by_key(|segment| segment.start);
        Ok(segments)
    }

    fn segment(&self, start: Gpa, bytes: u64) -> Result<MeasuredSegment, Unknown> {
        let range = PageRange::from_bounds(start, page_end(start, bytes))
            .map_err(|_| Unknown::Unreadable(start))?;
        let mut hasher = Sha256::new();
        let mut left = bytes;
        self.each_page(range, |_, page| {
            let length = left.min(PAGE_SIZE);
            // At most a page.
            hasher.update(page.get(..length as usize).unwrap_or(page));
            left -= length;
        })?;
        let kind = match self.placement.initrd {
            _ if start == Gpa::new(0) => SegmentKind::BootData,
            Some(initrd) if initrd == start => SegmentKind::Initrd,
            _ => SegmentKind::Kernel,
        };
        Ok(MeasuredSegment {
            kind,
            start,
            bytes,
            sha256: Digest::new(&hasher.finalize()),
        })
    }

    fn each_page(
        &self,
        range: PageRange<Gpa>,
        mut page: impl FnMut(Gpa, &Page),
    ) -> Result<(), Unknown> {
        let mut content = [0; 4096];
        for at in (range.start().raw()..range.end().raw()).step_by(4096) {
            let read = self.memory.read_slice(&mut content, GuestAddress(at));
            read.map_err(|_| Unknown::Unreadable(Gpa::new(at)))?;
            page(Gpa::new(at), &content);
        }
        Ok(())
    }
}

/// The end of the last page of a piece, which has been laid out and so is below 2^64.
fn page_end(start: Gpa, bytes: u64) -> Gpa {
    Gpa::new(
        start
            .raw()
            .saturating_add(bytes)
            .next_multiple_of(PAGE_SIZE),
    )
}
