//! Room in DRAM for what the guest boots.

use iommu::{Gpa, PageRange};

/// Something is too large for the memory of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {what} needs {bytes} bytes of guest memory in one piece, and {free} are free{limits}")]
pub struct DoesNotFit {
    /// Which of them.
    pub what: &'static str,
    /// How many bytes it takes.
    pub bytes: u64,
    /// The largest piece that is left for it.
    pub free: u64,
    /// Where that piece would have to be, as the end of the sentence.
    pub limits: &'static str,
}

/// Something that needs room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) what: &'static str,
    pub(super) bytes: u64,
    /// It starts at a multiple of this.
    pub(super) alignment: u64,
    /// For [`DoesNotFit::limits`].
    pub(super) limits: &'static str,
}

impl Item {
    /// An item that can be in any of the pieces.
    pub(super) fn anywhere(what: &'static str, bytes: u64, alignment: u64) -> Self {
        Self {
            what,
            bytes,
            alignment,
            limits: "",
        }
    }
}

/// What is free of a DRAM range: from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Piece {
    pub(super) fn of(range: &PageRange<Gpa>) -> Self {
        Self {
            start: range.start().raw(),
            end: range.end().raw(),
        }
    }

    /// The part of it that is in `start..end`, if there is any.
    pub(super) fn within(self, start: u64, end: u64) -> Option<Self> {
        let part = Self {
            start: self.start.max(start),
            end: self.end.min(end),
        };
        (part.start < part.end).then_some(part)
    }

    /// How many bytes there are from the next multiple of `alignment` on, and where that is.
    fn aligned(self, alignment: u64) -> Option<(u64, u64)> {
        let start = self.start.checked_next_multiple_of(alignment)?;
        Some((start, self.end.checked_sub(start)?))
    }
}

/// Takes the first room for `item`, and with it what is below in the same piece.
pub(super) fn take(free: &mut [Piece], item: Item) -> Result<u64, DoesNotFit> {
    let mut largest = 0;
    for piece in free {
        let Some((start, room)) = piece.aligned(item.alignment) else {
            continue;
        };
        if item.bytes <= room {
            piece.start = start.saturating_add(item.bytes);
            return Ok(start);
        }
        largest = largest.max(room);
    }
    Err(DoesNotFit {
        what: item.what,
        bytes: item.bytes,
        free: largest,
        limits: item.limits,
    })
}
