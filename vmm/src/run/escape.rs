//! What Ctrl-A means on the console.
//!
//! ```text
//!             any other byte: to the guest
//!            ┌────┐
//!            │    ▼   Ctrl-A
//!          ( Plain ) ───────► ( Escaped )
//!              ▲                   │  x: quit      h: help
//!              └───────────────────┘  Ctrl-A: to the guest      other: nothing
//! ```

/// Ctrl-A as a terminal sends it.
const CTRL_A: u8 = 0x01;

/// What a byte of input comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A byte for the guest.
    Guest(u8),
    /// The operator wants to end the VM.
    Quit,
    /// The operator wants to know the keys.
    Help,
    /// Nothing, or not yet.
    Nothing,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Escape {
    #[default]
    Plain,
    Escaped,
}

impl Escape {
    /// Takes the next byte.
    pub(super) fn next(&mut self, byte: u8) -> Key {
        let (state, key) = match (*self, byte) {
            (Self::Plain, CTRL_A) => (Self::Escaped, Key::Nothing),
            (Self::Plain, other) => (Self::Plain, Key::Guest(other)),
            (Self::Escaped, b'x' | b'X') => (Self::Plain, Key::Quit),
            (Self::Escaped, b'h' | b'H' | b'?') => (Self::Plain, Key::Help),
            (Self::Escaped, CTRL_A) => (Self::Plain, Key::Guest(CTRL_A)),
            (Self::Escaped, _) => (Self::Plain, Key::Nothing),
        };
        *self = state;
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(input: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        input.iter().map(|byte| escape.next(*byte)).collect()
    }

    #[test]
    fn ctrl_a_is_for_ccvm_and_twice_for_the_guest() {
        use Key::{Guest, Help, Nothing, Quit};
        assert_eq!(keys(b"ax"), [Guest(b'a'), Guest(b'x')]);
        assert_eq!(keys(b"\x01x"), [Nothing, Quit]);
        assert_eq!(keys(b"\x01h"), [Nothing, Help]);
        assert_eq!(keys(b"\x01\x01x"), [Nothing, Guest(CTRL_A), Guest(b'x')]);
        assert_eq!(keys(b"\x01qx"), [Nothing, Nothing, Guest(b'x')]);
    }
}
