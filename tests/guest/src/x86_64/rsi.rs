//! There are no Realms here: what a test asks of one is asked of nobody.

/// Bytes of a page.
pub const GRANULE: u64 = 4096;

/// The state of a shared page.
pub const EMPTY: u64 = 0;
/// That of a private one.
pub const RAM: u64 = 1;

/// No value of this type can be had.
#[derive(Clone, Copy)]
pub enum Realm {}

/// The host said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Its answer.
    pub status: u64,
    /// How far it came.
    pub reached: u64,
}

impl Realm {
    /// Prints what it is.
    pub fn report(self) {
        match self {}
    }

    /// The address bit of shared memory.
    pub fn shared_bit(self) -> u64 {
        match self {}
    }

    /// Brings all of `start..end` into a state.
    pub fn set(self, _start: u64, _end: u64, _state: u64) -> Result<(), Refused> {
        match self {}
    }
}
