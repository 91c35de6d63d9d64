//! Guest RAM whose private form is out of this process's reach.
//!
//! ```text
//!                  guest_memfd, one for each DRAM range     memory of this process (`SharedForm`)
//!   private page   what the guest and nobody else sees      nothing, once the guest runs
//!   shared page    nothing                                  what guest, host and devices see
//! ```
//! Which of the two the guest finds at an address is KVM's to say (`Vm::set_visibility`). Here the
//! memory behind a form that is out of use goes back to the host.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use iommu::{Gpa, PageRange, Visibility};

use super::mapping::{Backing, HUGE_PAGE, Mapping};
use super::{
    ConvertError, ConvertStep, DramRange, Form, GuestRam, HostPages, RamError, RamSlot,
    memory_file, punch_hole, reserve,
};

/// Which memory of this process the shared form is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedForm {
    /// Memory of this process alone, in pages that are huge where the host can.
    Anonymous,
    /// Files in memory, in small pages. KVM maps shared pages into a Realm one by one and writable, and has
    /// series that fail on what anonymous memory can have instead: a huge page, or the page of zeros that
    /// all memory shares which was read before it was written (`realm_map_ipa()` of series v14).
    SmallPages,
}

/// What RAM with a private form has beyond plain RAM: one for each DRAM range, in the same order.
pub(super) struct Files(Vec<Behind>);

/// The files behind one DRAM range.
struct Behind {
    private: OwnedFd,
    /// Of the shared form, where it is in one.
    shared: Option<OwnedFd>,
}

impl GuestRam {
    /// RAM with a shared form here, in `shared`, and a private one in `private`, which has one guest_memfd
    /// of the same length for each DRAM range.
    ///
    /// # Errors
    /// When the ranges do not ascend, a file is missing, or the host has no room.
    pub fn with_private(
        dram: &[PageRange<Gpa>],
        private: Vec<OwnedFd>,
        shared: SharedForm,
    ) -> Result<Self, RamError> {
        if private.len() != dram.len() {
            return Err(RamError::Layout);
        }
        let mut low = Vec::with_capacity(dram.len());
        let mut files = Vec::with_capacity(dram.len());
        for (&range, private) in dram.iter().zip(private) {
            let mapping = reserve(range, HUGE_PAGE)?;
            let shared = shared.map(range, &mapping)?;
            low.push(DramRange {
                range,
                mapping: Arc::new(mapping),
                file: None,
            });
            files.push(Behind { private, shared });
        }
        Self::of(low, Form::Private(Files(files)), HostPages::Transparent)
    }

    /// The file with the private form of the pages of `slot`, where RAM has one.
    pub(crate) fn guest_memfd_at(&self, slot: RamSlot) -> Option<BorrowedFd<'_>> {
        let Form::Private(files) = &self.form else {
            return None;
        };
        let mut ranges = self.low.iter().zip(&files.0);
        let found = ranges.find(|(dram, _)| dram.range.start().raw() == slot.guest);
        found.map(|(_, behind)| behind.private.as_fd())
    }

    /// Gives the memory of one form of `range` back to the host; the form reads zero from now on.
    ///
    /// # Errors
    /// When the range is not DRAM, RAM has no private form, or the host refuses.
    pub fn discard(&self, range: PageRange<Gpa>, form: Visibility) -> Result<(), ConvertError> {
        let Form::Private(files) = &self.form else {
            return Err(ConvertError::NotConvertible { range });
        };
        if !self.covers(range) {
            return Err(ConvertError::NotConvertible { range });
        }
        for (dram, behind) in self.low.iter().zip(&files.0) {
            let Some(part) = dram.range.intersection(range) else {
                continue;
            };
            let offset = part.start().raw().saturating_sub(dram.range.start().raw());
            let done = match form {
                Visibility::Private => punch_hole(&behind.private, offset, part.bytes()),
                Visibility::Shared => match &behind.shared {
                    Some(file) => punch_hole(file, offset, part.bytes()),
                    None => release(&dram.mapping, offset, part.bytes()),
                },
            };
            done.map_err(|source| ConvertError::Undone {
                range,
                step: ConvertStep::Discard,
                source,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Files {
    /// How many blocks of 512 bytes the files of the shared form occupy.
    pub(super) fn shared_blocks(&self) -> i64 {
        let files = self.0.iter().filter_map(|behind| behind.shared.as_ref());
        files
            .map(|file| rustix::fs::fstat(file).map_or(-1, |stat| stat.st_blocks))
            .sum()
    }
}

impl SharedForm {
    /// Puts it behind all of `mapping`, which is for `range`. Returns its file, where it has one.
    fn map(self, range: PageRange<Gpa>, mapping: &Mapping) -> Result<Option<OwnedFd>, RamError> {
        let reserved = |source| RamError::Reserve { range, source };
        let bytes = mapping.bytes();
        match self {
            Self::Anonymous => {
                let mapped = mapping.replace(0, bytes, Backing::Anonymous);
                mapped.map_err(reserved)?;
                Ok(None)
            }
            Self::SmallPages => {
                let file = memory_file("guest-shared", range.bytes())?;
                let mapped = mapping.replace(0, bytes, Backing::File(file.as_fd(), 0));
                mapped
                    .and_then(|()| mapping.refuse_huge_pages())
                    .map_err(reserved)?;
                Ok(Some(file))
            }
        }
    }
}

/// Gives a part of the anonymous shared form back to the host.
fn release(mapping: &Mapping, offset: u64, bytes: u64) -> io::Result<()> {
    let number = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    mapping.discard(number(offset)?, number(bytes)?)
}
