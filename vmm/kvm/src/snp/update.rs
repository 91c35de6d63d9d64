//! `KVM_SEV_SNP_LAUNCH_UPDATE`: pages get their content, one after the other, each with a line in the
//! launch digest.

use iommu::{Gpa, PAGE_SIZE, PageRange};
use kvm_bindings::kvm_sev_snp_launch_update;

use super::command::{Command, give};
use super::device::SecurityProcessor;
use crate::progress::Attempts;
use crate::ram::GuestRam;
use crate::{Error, Vm};

/// What pages hold when the guest starts (SEV-SNP firmware ABI, 56860, `SNP_LAUNCH_UPDATE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A copy, which is measured.
    Copied,
    /// Zeros; that they are is measured.
    Zero,
    /// A copy; that something is there is measured.
    Unmeasured,
    /// The guest's keys for the security processor: one page.
    Secrets,
    /// A copy of what the guest's processors are to be, once the security processor has found it to be
    /// true: one page.
    Cpuid,
}

impl Content {
    /// `KVM_SEV_SNP_PAGE_TYPE_*`.
    fn page_type(self) -> u8 {
        match self {
            Self::Copied => 1,
            Self::Zero => 3,
            Self::Unmeasured => 4,
            Self::Secrets => 5,
            Self::Cpuid => 6,
        }
    }
}

pub(super) fn update(
    vm: &Vm,
    processor: &SecurityProcessor,
    ram: &GuestRam,
    range: PageRange<Gpa>,
    content: Content,
) -> Result<(), Error> {
    let source = ram.dma_address(range).ok_or(Error::Misaligned {
        at: range.start().into(),
        bytes: range.bytes(),
    })?;
    let mut rest = kvm_sev_snp_launch_update {
        gfn_start: range.start().raw() / PAGE_SIZE,
        uaddr: match content {
            Content::Zero => 0,
            Content::Copied | Content::Unmeasured | Content::Secrets | Content::Cpuid => source,
        },
        len: range.bytes(),
        type_: content.page_type(),
        ..Default::default()
    };
    let mut attempts = Attempts::default();
    // The kernel moves `gfn_start`, `uaddr` and `len` on by what it has done, and may do less than all.
    while rest.len != 0 {
        let before = rest.len;
        match give(vm, processor, Command::Update, &mut rest) {
            Err(error) if error.asks_again() => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        if !attempts.go_on(before, rest.len) {
            return Err(Error::NoProgress {
                call: Command::Update.name(),
                at: Gpa::new(rest.gfn_start.saturating_mul(PAGE_SIZE)).into(),
            });
        }
    }
    Ok(())
}
