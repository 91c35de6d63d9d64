//! A guest's request to share pages or to make them private, and how it ends.
//!
//! ```text
//!   mark Converting ─► unmap losing tables ─► check room ─► flip ─► discard ─► map gaining tables ─► commit
//!        ▲                    │                   │          │         │              │
//!        └──────── undo ◄─────┴───────────────────┘          │         └──────┬───────┘
//!        └──────── undo ◄──────────── without effect ────────┘                │
//!                             unknown effect ─────────────────────────► quarantine
//! ```

use std::fmt;

use crate::addr::{Gpa, PageRange, RangeError};
use crate::page_state::{PageStates, Visibility};
use crate::table::{HostError, TableId};

/// How many extents one call converts at most; each costs several host calls.
pub const MAX_EXTENTS: u64 = 256;

/// The memory side of a conversion, done by the platform.
pub trait PageFlip {
    /// Changes what stage 2 shows to the guest and lets the host do: `range` is `to` from now on.
    ///
    /// # Errors
    /// [`Effect::None`](crate::Effect::None) when every page is still as it was.
    fn flip(&mut self, range: PageRange<Gpa>, to: Visibility) -> Result<(), HostError>;

    /// Gives the memory behind the pages' old form back to the host, where there is such.
    ///
    /// # Errors
    /// When the host does not take it.
    fn discard(&mut self, range: PageRange<Gpa>, old: Visibility) -> Result<(), HostError>;
}

/// A request that makes sense: whole pages, all of them DRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversion {
    range: PageRange<Gpa>,
    to: Visibility,
}

/// Why a request makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no range of pages.
    #[error("no range of pages to convert")]
    Range(#[source] RangeError),
    /// A page of it is not DRAM.
    #[error("{range} is not all DRAM")]
    NotDram {
        /// What was asked for.
        range: PageRange<Gpa>,
    },
}

impl Conversion {
    /// Checks a request for `bytes` bytes from `start`, an address without the shared bit.
    ///
    /// # Errors
    /// When the range is empty, misaligned, wraps, or holds a page that is not DRAM.
    pub fn new(
        states: &PageStates,
        start: Gpa,
        bytes: u64,
        to: Visibility,
    ) -> Result<Self, RequestError> {
        let range = PageRange::new(start, bytes).map_err(RequestError::Range)?;
        if !states.covers(range) {
            return Err(RequestError::NotDram { range });
        }
        Ok(Self { range, to })
    }

    /// The pages to convert.
    #[must_use]
    pub fn range(self) -> PageRange<Gpa> {
        self.range
    }

    /// What they are to become.
    #[must_use]
    pub fn to(self) -> Visibility {
        self.to
    }
}

/// A conversion that did what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// Every page below this address, from the start of the request, is in the asked-for state. It is
    /// the end of the request unless that had more than [`MAX_EXTENTS`] extents to convert: then the
    /// guest, or the caller in its place, asks again from here.
    pub end: Gpa,
    /// Pages that changed.
    pub pages: u64,
    /// Contiguous ranges that changed.
    pub extents: u64,
}

/// What was being done when a conversion failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Taking the pages out of a table.
    Unmap(TableId),
    /// Making sure that the host lets a table hold what it is about to gain.
    Room(TableId),
    /// Changing stage 2.
    Flip,
    /// Giving the old memory back.
    Discard,
    /// Adding the pages to a table.
    Map(TableId),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmap(table) => write!(f, "unmapping from {table}"),
            Self::Room(table) => write!(f, "finding room in {table}"),
            Self::Flip => f.write_str("changing stage 2"),
            Self::Discard => f.write_str("discarding the old memory"),
            Self::Map(table) => write!(f, "mapping into {table}"),
        }
    }
}

/// Why a conversion stopped. The pages of the request below the named range have been converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A step before the flip failed and all that was done has been undone: the pages are as
    /// before, in stage 2 and in every table. The guest may try again.
    #[error("{range} stays as it was: {step} failed")]
    Refused {
        /// The pages that were to change.
        range: PageRange<Gpa>,
        /// What failed.
        step: Step,
        /// The call that failed.
        source: HostError,
    },
    /// An earlier failure has put these pages out of use.
    #[error("{range} is quarantined")]
    Quarantined {
        /// The pages.
        range: PageRange<Gpa>,
    },
    /// A failure that could not be undone. The devices of the named tables must be cut off and reset.
    #[error("{range} failed to become {to}: {step} failed; {damage}")]
    Damaged {
        /// The pages that were to change.
        range: PageRange<Gpa>,
        /// What they were to become.
        to: Visibility,
        /// What failed first.
        step: Step,
        /// What is out of use now.
        damage: Damage,
        /// The call that failed first.
        source: HostError,
    },
}

impl ConvertError {
    /// The first page of the request that was not converted.
    #[must_use]
    pub fn converted_to(&self) -> Gpa {
        match self {
            Self::Refused { range, .. }
            | Self::Quarantined { range }
            | Self::Damaged { range, .. } => range.start(),
        }
    }

    /// Whether the pages are as before, so that the guest may try again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// What a failure has put out of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Whether the pages are quarantined. If not, they are as before.
    pub pages: bool,
    /// The tables that are quarantined by this failure.
    pub tables: Vec<TableId>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "quarantined: ";
        if self.pages {
            write!(f, "{separator}the pages")?;
            separator = ", ";
        }
        for table in &self.tables {
            write!(f, "{separator}{table}")?;
            separator = ", ";
        }
        Ok(())
    }
}
