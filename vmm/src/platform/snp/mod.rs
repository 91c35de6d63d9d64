//! A guest of AMD SEV-SNP: its processor encrypts its memory, and the security processor measures what it
//! starts from. docs/platforms/snp.md has the rest.
//!
//! ```text
//!   Guest ─► (memory, interrupt controllers, vCPUs, files) ─► LoadedGuest ─► EncryptedPages
//!   INIT2                                                     START, UPDATE   FINISH
//! ```
//! Where it boots a kernel it starts without firmware, at the 64-bit entry of that. So no firmware is there to accept
//! memory: all of DRAM is part of the launch, as content or as zeros. An IGVM file says by itself what is.

mod layout;

use std::sync::Arc;

use iommu::{Gpa, PageRange};
use kvm::Vm;
use kvm::ram::GuestRam;
use kvm::snp::{Content, Initialized, Started};

use super::encrypted_pages::EncryptedPages;
use crate::convert::Pages;

pub use layout::{LayoutError, SpecialPages, layout};

/// A guest without content.
pub struct Guest(Initialized);

impl Guest {
    /// Makes `vm`, which has nothing yet, an SNP guest.
    ///
    /// # Errors
    /// When KVM refuses, or there is no security processor.
    pub fn new(vm: &Vm) -> Result<Self, kvm::Error> {
        Initialized::new(vm).map(Self)
    }

    /// Makes `content`, as [`layout()`] has laid it out, what the guest starts from; copies come from the
    /// shared form of `ram`. The guest's owner lets the host do what `policy` says. After its vCPUs.
    ///
    /// # Errors
    /// When KVM or the security processor refuse.
    pub fn load(
        self,
        ram: &GuestRam,
        content: &[(PageRange<Gpa>, Content)],
        policy: u64,
    ) -> Result<LoadedGuest, kvm::Error> {
        let started = self.0.start(policy)?;
        for (range, content) in content {
            started.update(ram, *range, *content)?;
        }
        let copied = content.iter();
        let copied = copied.filter(|(_, content)| *content != Content::Zero);
        Ok(LoadedGuest {
            started,
            copied: copied.map(|(range, _)| *range).collect(),
        })
    }
}

/// A guest with its content, and registers that can be set.
pub struct LoadedGuest {
    started: Started,
    copied: Vec<PageRange<Gpa>>,
}

impl LoadedGuest {
    /// Ends the measurement. After the registers of the vCPUs are set.
    ///
    /// # Errors
    /// When KVM or the security processor refuse.
    pub fn finish(self, pages: Arc<Pages>) -> Result<EncryptedPages, kvm::Error> {
        self.started.finish()?;
        Ok(EncryptedPages::new(pages, None, self.copied))
    }
}
