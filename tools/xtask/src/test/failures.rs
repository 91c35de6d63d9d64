//! What failed, if only at first, to be said once more at the end: between there and its first mention are many
//! lines.

/// The failures that runners told of, in their order.
#[derive(Debug, Default)]
pub(super) struct Failures {
    told: Vec<String>,
    /// Whether the last line belongs to a failure that the next one may say more of.
    is_open: bool,
}

impl Failures {
    /// Reads a line of a runner: nextest's, cargo test's or vmtest's, which gives the reason below, indented.
    pub(super) fn read(&mut self, line: &str) {
        if self.is_open && line.starts_with("      ") {
            self.push(line.to_owned());
            return;
        }
        self.is_open = line.starts_with("FAIL  ") || line.starts_with("FLAKY ");
        let trimmed = line.trim();
        let is_failure = self.is_open
            || trimmed.starts_with("FAIL [")
            || trimmed.starts_with("TIMEOUT [")
            || trimmed.starts_with("test ") && trimmed.ends_with(" ... FAILED");
        if is_failure {
            self.push(trimmed.to_owned());
        }
    }

    /// The lines to say again.
    pub(super) fn lines(&self) -> &[String] {
        &self.told
    }

    /// Nextest tells of a failure when it happens and when it ends.
    fn push(&mut self, line: String) {
        if !self.told.contains(&line) {
            self.told.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_runner_says_of_a_failure_is_kept_once_and_nothing_else_is() {
        let mut failures = Failures::default();
        for line in [
            "        PASS [   0.1s] vmm a::is_true",
            "        FAIL [   0.095s] (501/723) vmm a::was_true",
            "        FAIL [   0.095s] (501/723) vmm a::was_true",
            "test b::was_true ... FAILED",
            "test b::is_true ... ok",
            "PASS  it_boots (1.0 s)",
            "FAIL  it_stops (2.0 s)",
            "      it went on",
            "PASS  it_ends (1.0 s)",
            "      a figure: 3",
            "FLAKY it_lands (1.0 s): passed when run again; at first:",
            "      too hard",
        ] {
            failures.read(line);
        }
        assert_eq!(
            failures.lines(),
            [
                "FAIL [   0.095s] (501/723) vmm a::was_true",
                "test b::was_true ... FAILED",
                "FAIL  it_stops (2.0 s)",
                "      it went on",
                "FLAKY it_lands (1.0 s): passed when run again; at first:",
                "      too hard",
            ]
        );
    }
}
