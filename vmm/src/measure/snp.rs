//! The launch digest of an SEV-SNP guest: a chain of SHA-384 over `PAGE_INFO` structures.
//!
//! ```text
//! SNP_LAUNCH_START ─► SNP_LAUNCH_UPDATE ... ─► SNP_LAUNCH_FINISH: one VMSA for each vCPU ─► the digest
//! digest = 0          digest = SHA-384(PAGE_INFO with the digest before)
//! ```
//!
//! By the SEV Secure Nested Paging Firmware ABI Specification (AMD 56860), "Page Info Structure".

mod vmsa;

use iommu::{Gpa, PAGE_SIZE, PageRange};
use sha2::{Digest as _, Sha384};

use super::digest::Digest;
use crate::boot::segment::Page;

pub use vmsa::{RESET_VECTOR, Vmsa};

/// Bytes of `PAGE_INFO`.
const PAGE_INFO: u16 = 0x70;

/// Where a VMSA page counts as: the last page of 48 bits.
const VMSA_AT: Gpa = Gpa::new(0xffff_ffff_f000);

/// What a page is to the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Unmeasured = 4,
    Secrets = 5,
    Cpuid = 6,
}

/// Pages of which not the content is measured, but that they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentFree {
    /// The firmware fills them with zeros.
    Zero,
    /// They hold anything.
    Unmeasured,
    /// The firmware puts the guest's keys there.
    Secrets,
    /// The firmware puts checked CPUID values there.
    Cpuid,
}

/// A launch digest in the making.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchDigest([u8; 48]);

impl Default for LaunchDigest {
    /// `SNP_LAUNCH_START`.
    fn default() -> Self {
        Self([0; 48])
    }
}

impl LaunchDigest {
    /// Goes on from a digest that is known: such as that of a firmware image.
    #[must_use]
    pub const fn resume(digest: [u8; 48]) -> Self {
        Self(digest)
    }

    /// The digest, as far as it has come.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::new(&self.0)
    }

    /// A page whose content is measured.
    pub fn normal(&mut self, at: Gpa, page: &Page) {
        self.extend(PageType::Normal, at, Sha384::digest(page).into());
    }

    /// Pages whose content is not.
    pub fn content_free(&mut self, range: PageRange<Gpa>, kind: ContentFree) {
        let kind = match kind {
            ContentFree::Zero => PageType::Zero,
            ContentFree::Unmeasured => PageType::Unmeasured,
            ContentFree::Secrets => PageType::Secrets,
            ContentFree::Cpuid => PageType::Cpuid,
        };
        for page in 0..range.pages() {
            let offset = page.saturating_mul(PAGE_SIZE);
            if let Some(at) = range.start().checked_add(offset) {
                self.extend(kind, at, [0; 48]);
            }
        }
    }

    /// How a vCPU starts.
    pub fn vmsa(&mut self, vmsa: &Vmsa) {
        self.vmsa_page(&vmsa.to_page());
    }

    /// How a vCPU starts, as the page that is measured.
    pub fn vmsa_page(&mut self, page: &Page) {
        self.extend(PageType::Vmsa, VMSA_AT, Sha384::digest(page).into());
    }

    fn extend(&mut self, kind: PageType, at: Gpa, content: [u8; 48]) {
        let mut info = Vec::with_capacity(PAGE_INFO.into());
        info.extend(self.0);
        info.extend(content);
        info.extend(PAGE_INFO.to_le_bytes());
        // No migration image, and no permissions for VMPL 3, 2 and 1; then a reserved byte.
        info.extend([kind as u8, 0, 0, 0, 0, 0]);
        info.extend(at.raw().to_le_bytes());
        self.0 = Sha384::digest(info).into();
    }
}

#[cfg(test)]
mod tests;
