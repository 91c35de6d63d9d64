//! What a run of the VM tests found, fit to attach to a bug or a patch.

use std::fmt::Write as _;
use std::fs;
use std::ops::AddAssign;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::case::{self, Host, Outcome};

/// A run: where, with what, and how each test ended.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Who played the host.
    pub host: &'static str,
    /// `uname -a` of the host.
    pub kernel: String,
    /// The version of ccvm.
    pub ccvm: String,
    /// The guests' kernel.
    pub guest_kernel: String,
    /// `ccvm host --json`.
    pub facts: Value,
    /// Each test.
    pub results: Vec<case::Result>,
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// As they should.
    pub passed: usize,
    /// Not so.
    pub failed: usize,
    /// Not run.
    pub skipped: usize,
}

impl Tally {
    /// Counts results.
    #[must_use]
    pub fn of(results: &[case::Result]) -> Self {
        let count = |wanted: fn(&Outcome) -> bool| {
            results
                .iter()
                .filter(|result| wanted(&result.outcome))
                .count()
        };
        Self {
            passed: count(|outcome| matches!(outcome, Outcome::Passed)),
            failed: count(|outcome| matches!(outcome, Outcome::Failed(_))),
            skipped: count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Report {
    /// Asks the host who it is.
    ///
    /// # Errors
    /// When the host does not answer.
    pub fn gather(
        host: &mut Host<'_>,
        name: &'static str,
        guest_kernel: &str,
        results: &[case::Result],
    ) -> anyhow::Result<Self> {
        let ccvm = host.ccvm.clone();
        let facts = host.ccvm("host --json")?;
        Ok(Self {
            host: name,
            kernel: host.machine.read("uname -a")?,
            ccvm: host.machine.read(&format!("{ccvm} --version"))?,
            guest_kernel: guest_kernel.to_owned(),
            facts: serde_json::from_str(&facts.text).unwrap_or(Value::String(facts.text)),
            results: results.to_vec(),
        })
    }

    /// Writes `report.txt` and `report.json` into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let json = serde_json::to_string_pretty(self).context("cannot write the report")?;
        for (name, content) in [("report.txt", self.text()), ("report.json", json + "\n")] {
            let path = folder.join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "host          {}\nhost kernel   {}\nccvm          {}\nguest kernel  {}\n\n",
            self.host, self.kernel, self.ccvm, self.guest_kernel
        );
        for result in &self.results {
            text += &line(result);
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "\n{}\n", Tally::of(&self.results));
        let facts = serde_json::to_string_pretty(&self.facts).unwrap_or_default();
        text + "host facts\n" + &facts + "\n"
    }
}

/// One test's result, as the runner and the report show it.
#[must_use]
pub fn line(result: &case::Result) -> String {
    let took = result.took.as_secs_f64();
    match (&result.outcome, &result.first) {
        (Outcome::Passed, None) => format!("PASS  {} ({took:.1} s)\n", result.name),
        (Outcome::Passed, Some(first)) => format!(
            "FLAKY {} ({took:.1} s): passed when run again; at first:\n{}",
            result.name,
            indented(first)
        ),
        (Outcome::Skipped(reason), _) => format!("SKIP  {}: {reason}\n", result.name),
        (Outcome::Cannot(reason), _) => format!("N/A   {}: {reason}\n", result.name),
        (Outcome::Failed(reason), _) => {
            format!("FAIL  {} ({took:.1} s)\n{}", result.name, indented(reason))
        }
    }
}

fn indented(reason: &str) -> String {
    reason
        .lines()
        .map(|line| format!("      {line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_report_holds_each_result_and_the_totals() {
        let result = |name, outcome| case::Result {
            name,
            outcome,
            took: Duration::from_millis(1500),
            first: None,
        };
        let second = result("it_lands", Outcome::Passed)
            .after(result("it_lands", Outcome::Failed("too hard".into())));
        let report = Report {
            host: "this machine",
            kernel: "Linux 7.3".into(),
            ccvm: "ccvm 0.1.0".into(),
            guest_kernel: "7.3.4-1".into(),
            facts: serde_json::json!({"schema": 1}),
            results: vec![
                result("it_boots", Outcome::Passed),
                result("it_reads", Outcome::Failed("no disk\nat all".into())),
                result("it_sends", Outcome::Skipped("no card".into())),
                result("it_flies", Outcome::Cannot("no wings".into())),
                second,
            ],
        };
        let folder = tempfile::tempdir().unwrap();
        report.write(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("report.txt")).unwrap();
        assert!(text.contains("PASS  it_boots (1.5 s)\n"), "{text}");
        assert!(
            text.contains("FAIL  it_reads (1.5 s)\n      no disk\n      at all\n"),
            "{text}"
        );
        assert!(text.contains("SKIP  it_sends: no card\n"), "{text}");
        assert!(text.contains("N/A   it_flies: no wings\n"), "{text}");
        assert!(
            text.contains(
                "FLAKY it_lands (1.5 s): passed when run again; at first:\n      too hard\n"
            ),
            "{text}"
        );
        assert!(text.contains("\n2 passed, 1 failed, 1 skipped\n"), "{text}");
        let json = fs::read_to_string(folder.path().join("report.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["results"][1]["outcome"], "failed");
        assert_eq!(json["results"][1]["reason"], "no disk\nat all");
        assert_eq!(json["results"][0]["seconds"], 1.5);
        assert_eq!(json["results"][4]["first"], "too hard");
    }
}
