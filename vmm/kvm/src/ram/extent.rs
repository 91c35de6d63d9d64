//! A stretch of split RAM on its way from one state to the other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use iommu::{Gpa, PageRange};

use super::mapping::{Backing, Mapping};
use super::{Alias, DramRange, punch_hole};

/// Which step of a conversion failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvertStep {
    /// Discarding old content of the shared file.
    Discard,
    /// Changing what is behind the shared alias.
    Alias,
    /// Changing what is behind the page's own address.
    Low,
}

/// Why a range did not change its state.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The range is not DRAM, or this RAM is plain.
    #[error("{range} is not guest memory that can be converted")]
    NotConvertible {
        /// The range.
        range: PageRange<Gpa>,
    },
    /// A step failed and the range is as it was.
    #[error("cannot convert {range}: step {step:?} failed{}", hint(.source))]
    Undone {
        /// The range.
        range: PageRange<Gpa>,
        /// The step.
        step: ConvertStep,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A step failed and there was no way back: the range is in neither state.
    #[error("cannot convert {range}, nor leave it as it was: step {step:?} failed{}", hint(.source))]
    Torn {
        /// The range.
        range: PageRange<Gpa>,
        /// The step.
        step: ConvertStep,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What an operator can do about it.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::OutOfMemory => " (the limit may be sysctl vm.max_map_count)",
        _ => "",
    }
}

/// The state that a range changes to.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Shared,
    Private,
}

/// A contiguous part of one DRAM range that changes its state as a whole.
pub(super) struct Extent<'a> {
    part: PageRange<Gpa>,
    low: &'a Mapping,
    alias: &'a Mapping,
    file: &'a OwnedFd,
    /// Where the part begins in both mappings.
    offset: usize,
    bytes: usize,
    /// Where the part begins in the file.
    file_offset: u64,
}

impl<'a> Extent<'a> {
    pub(super) fn new(
        dram: &'a DramRange,
        alias: &'a Alias,
        file: &'a OwnedFd,
        part: PageRange<Gpa>,
    ) -> Option<Self> {
        let offset = part.start().offset_from(dram.range.start())?;
        Some(Self {
            part,
            low: &dram.mapping,
            alias: &alias.mapping,
            file,
            offset: usize::try_from(offset).ok()?,
            bytes: usize::try_from(part.bytes()).ok()?,
            file_offset: alias.file_offset.checked_add(offset)?,
        })
    }

    /// The alias changes first: until the low address follows, no content is lost.
    pub(super) fn convert(&self, target: Target) -> Result<(), ConvertError> {
        if let Target::Shared = target {
            self.discard()
                .map_err(|source| self.undone(ConvertStep::Discard, source))?;
        }
        self.set_alias(target)
            .map_err(|source| self.roll_back(target, ConvertStep::Alias, source))?;
        self.set_low(target)
            .map_err(|source| self.roll_back(target, ConvertStep::Low, source))?;
        if let Target::Private = target
            && let Err(error) = self.discard()
        {
            // Nobody reaches these pages any more, and sharing discards them again.
            tracing::warn!("cannot free the shared pages of {}: {error}", self.part);
        }
        Ok(())
    }

    fn set_alias(&self, target: Target) -> io::Result<()> {
        let backing = match target {
            Target::Shared => Backing::File(self.file.as_fd(), self.file_offset),
            Target::Private => Backing::Nothing,
        };
        self.alias.replace(self.offset, self.bytes, backing)
    }

    fn set_low(&self, target: Target) -> io::Result<()> {
        let backing = match target {
            Target::Shared => Backing::File(self.file.as_fd(), self.file_offset),
            Target::Private => Backing::Anonymous,
        };
        self.low.replace(self.offset, self.bytes, backing)
    }

    fn discard(&self) -> io::Result<()> {
        punch_hole(self.file, self.file_offset, self.part.bytes())
    }

    /// Puts the alias back to where it was before `target`.
    fn roll_back(&self, target: Target, step: ConvertStep, source: io::Error) -> ConvertError {
        let before = match target {
            Target::Shared => Target::Private,
            Target::Private => Target::Shared,
        };
        match self.set_alias(before) {
            Ok(()) => self.undone(step, source),
            Err(_) => ConvertError::Torn {
                range: self.part,
                step,
                source,
            },
        }
    }

    fn undone(&self, step: ConvertStep, source: io::Error) -> ConvertError {
        ConvertError::Undone {
            range: self.part,
            step,
            source,
        }
    }
}
