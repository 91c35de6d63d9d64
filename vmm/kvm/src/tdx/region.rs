//! `KVM_TDX_INIT_MEM_REGION`: pages of a TD get their content.

use iommu::{Gpa, PageRange};

use super::command::{Command, give};
use crate::progress::Attempts;
use crate::ram::GuestRam;
use crate::{Error, Vcpu};

/// `KVM_TDX_MEASURE_MEMORY_REGION`.
const MEASURE: u32 = 1 << 0;

/// `struct kvm_tdx_init_mem_region`. The kernel moves all three on by what it has done.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Region {
    source_addr: u64,
    gpa: u64,
    nr_pages: u64,
}
const _: () = assert!(size_of::<Region>() == 24);

/// Whether the content of pages is measured; that they are there always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// It is.
    Content,
    /// It is not: the guest cannot trust it.
    Presence,
}

impl Vcpu {
    /// Copies `range` from the shared form of the same pages in `ram` into the TD. By its first vCPU,
    /// before it is finalized.
    ///
    /// # Errors
    /// When the range is not within one range of `ram`, has content already, or KVM or the TDX module
    /// refuse.
    pub fn load_td(
        &self,
        ram: &GuestRam,
        range: PageRange<Gpa>,
        measure: Measure,
    ) -> Result<(), Error> {
        let source = ram.dma_address(range).ok_or(Error::Misaligned {
            at: range.start().into(),
            bytes: range.bytes(),
        })?;
        let flags = match measure {
            Measure::Content => MEASURE,
            Measure::Presence => 0,
        };
        let mut rest = Region {
            source_addr: source,
            gpa: range.start().raw(),
            nr_pages: range.pages(),
        };
        let mut attempts = Attempts::default();
        while rest.nr_pages != 0 {
            let before = rest.nr_pages;
            let data = std::ptr::from_mut(&mut rest).expose_provenance() as u64;
            match give(self.fd(), Command::InitMemRegion, flags, data) {
                Err(error) if error.asks_again() => {}
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            if !attempts.go_on(before, rest.nr_pages) {
                return Err(Error::NoProgress {
                    call: Command::InitMemRegion.name(),
                    at: Gpa::new(rest.gpa).into(),
                });
            }
        }
        Ok(())
    }
}
