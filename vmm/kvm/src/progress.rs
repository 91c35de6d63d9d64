//! Calls that do their work bit by bit, and say how much is left.

/// A kernel that asks to be called again, and has done nothing, so often in a row, never will.
const MOST_ATTEMPTS: u32 = 10_000;

/// How often in a row such a call has done nothing.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    /// Whether to call again after one that had `before` to do and has left `rest` of it.
    pub(crate) fn go_on(&mut self, before: u64, rest: u64) -> bool {
        self.0 = match rest < before {
            true => 0,
            false => self.0 + 1,
        };
        rest <= before && self.0 < MOST_ATTEMPTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_moves_on_is_made_again_and_one_that_does_not_is_given_up() {
        let mut attempts = Attempts::default();
        assert!(attempts.go_on(3, 2));
        for _ in 1..MOST_ATTEMPTS {
            assert!(attempts.go_on(2, 2));
        }
        assert!(!attempts.go_on(2, 2));
        assert!(attempts.go_on(2, 1), "progress starts the count again");
        assert!(!attempts.go_on(1, 2), "more than before");
    }
}
