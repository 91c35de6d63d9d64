//! Memory that nobody uses yet, and pages that are shared with devices.

use crate::machine::{Machine, Range};
use crate::rsi::{EMPTY, GRANULE, Refused};

/// The largest range of unused memory, given out from its start.
pub struct Spare(Range);

impl Spare {
    /// All of it.
    pub fn of(machine: &Machine<'_>) -> Self {
        Self(machine.spare())
    }

    /// The next `bytes` bytes whose address is a multiple of `alignment`.
    pub fn take(&mut self, bytes: u64, alignment: u64) -> Result<Range, &'static str> {
        let start = self.0.start.next_multiple_of(alignment);
        let end = start.checked_add(bytes).ok_or("too much memory")?;
        if end > self.0.end {
            return Err("not enough memory");
        }
        self.0.start = end;
        Ok(Range { start, end })
    }

    /// All that is left, in whole units of `alignment`.
    pub fn rest(&mut self, alignment: u64) -> Range {
        let start = self.0.start.next_multiple_of(alignment);
        let end = self.0.end / alignment * alignment;
        self.0.start = end;
        Range { start, end }
    }

    /// Takes `pages` pages and shares them.
    pub fn share(&mut self, machine: &Machine<'_>, pages: u64) -> Result<Shared, ShareError> {
        let range = self.take(pages * GRANULE, GRANULE)?;
        Ok(Shared::new(machine, range)?)
    }
}

/// Why there are no shared pages.
pub enum ShareError {
    /// No room.
    NoMemory(&'static str),
    /// The host does not.
    Refused(Refused),
}

impl From<&'static str> for ShareError {
    fn from(reason: &'static str) -> Self {
        Self::NoMemory(reason)
    }
}

impl From<Refused> for ShareError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Pages that devices can reach: shared ones in a Realm, any in another VM.
#[derive(Clone, Copy)]
pub struct Shared {
    /// Their own address.
    pub range: Range,
    /// Where this program and devices access them.
    pub address: u64,
}

impl Shared {
    /// Shares pages.
    pub fn new(machine: &Machine<'_>, range: Range) -> Result<Self, Refused> {
        if let Some(realm) = machine.realm {
            realm.set(range.start, range.end, EMPTY)?;
        }
        let address = machine.shared(range.start);
        Ok(Self { range, address })
    }

    /// Where page `number` is accessed.
    pub fn page(self, number: u64) -> u64 {
        self.address + number * GRANULE
    }
}
