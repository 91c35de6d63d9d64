//! `cargo xtask test`: every test that there is.
//!
//! The last line of output is always `N passed, N failed, N skipped`, over all of them.

use std::io::{BufRead as _, BufReader, Read};
use std::ops::AddAssign;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail};

use crate::cross;

mod failures;
mod vms;

use failures::Failures;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Run the VM tests alone
    #[arg(long, conflicts_with = "no_vm")]
    only_vm: bool,
    /// Leave the VM tests out
    #[arg(long)]
    no_vm: bool,
    /// Run only the tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run the VM tests of one architecture's testbed only: arm64 or x86_64
    #[arg(long, value_name = "ARCH", conflicts_with = "on_host")]
    arch: Option<String>,
    /// Name what is missing on this machine and do not install it
    #[arg(long)]
    no_install: bool,
    /// Run the VM tests, and nothing else, with this machine as the host
    #[arg(long, conflicts_with = "no_vm")]
    on_host: bool,
    /// With --on-host: a PCI device that the tests may take from its driver
    #[arg(long, value_name = "ADDRESS", requires = "on_host")]
    device: Vec<String>,
    /// With --on-host: a disk among the devices whose content the tests may destroy
    #[arg(long, value_name = "ADDRESS", requires = "on_host")]
    scratch: Vec<String>,
    /// Write a report of the VM tests, as text and JSON, into this folder
    #[arg(long, value_name = "FOLDER")]
    report: Option<String>,
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let mut total = Tally::default();
    let mut failures = Failures::default();
    if !args.only_vm && !args.on_host {
        total += in_crates(args, &mut failures)?;
        total += in_docs(args, &mut failures)?;
        total += on_scripted_kernels(args, &mut failures)?;
    }
    if !args.no_vm {
        total += vms::run(args, &mut failures)?;
    }
    for line in failures.lines() {
        println!("{line}");
    }
    let Tally {
        passed,
        failed,
        skipped,
    } = total;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} tests failed");
    }
    Ok(())
}

/// Unit, property and golden tests.
fn in_crates(args: &Args, failures: &mut Failures) -> anyhow::Result<Tally> {
    println!("==> unit, property and golden tests");
    let has_nextest = Command::new("cargo")
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    let mut cargo = Command::new("cargo");
    if has_nextest {
        cargo.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--no-tests=pass",
        ]);
        cargo.args([
            "--cargo-quiet",
            "--status-level=fail",
            "--final-status-level=fail",
        ]);
    } else {
        cargo.args([
            "test",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--no-fail-fast",
        ]);
    }
    cargo.args(&args.filter);
    tally(
        &mut cargo,
        if has_nextest {
            Stream::Errors
        } else {
            Stream::Output
        },
        failures,
    )
}

/// The examples in the documentation.
fn in_docs(args: &Args, failures: &mut Failures) -> anyhow::Result<Tally> {
    println!("==> examples in the documentation");
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--workspace", "--doc", "--no-fail-fast"]);
    cargo.args(&args.filter);
    tally(&mut cargo, Stream::Output, failures)
}

/// Launches on kernels that no test machine has: code for arm64, which another machine emulates.
fn on_scripted_kernels(args: &Args, failures: &mut Failures) -> anyhow::Result<Tally> {
    println!("==> launches on scripted kernels, for arm64");
    let mut cargo = match cross::test() {
        Ok(cargo) => cargo,
        Err(reason) => {
            println!("SKIP  {reason}");
            return Ok(Tally {
                skipped: u64::from(!cfg!(target_arch = "aarch64")),
                ..Tally::default()
            });
        }
    };
    cargo.args(["--quiet", "--package=kvm", "--package=vmm"]);
    cargo.args(["--test=realm", "--test=launch", "--no-fail-fast"]);
    cargo.args(&args.filter);
    tally(&mut cargo, Stream::Output, failures)
}

/// Where a runner prints its summary.
#[derive(Clone, Copy)]
enum Stream {
    Output,
    Errors,
}

/// Runs a test runner, shows what it prints, and adds up its summaries.
fn tally(command: &mut Command, stream: Stream, failures: &mut Failures) -> anyhow::Result<Tally> {
    match stream {
        Stream::Output => command.stdout(Stdio::piped()),
        Stream::Errors => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().context("cannot start the tests")?;
    let pipe: Box<dyn Read> = match (child.stdout.take(), child.stderr.take()) {
        (Some(output), _) => Box::new(output),
        (None, Some(errors)) => Box::new(errors),
        (None, None) => bail!("the tests have no output"),
    };
    let total = show(pipe, failures)?;
    let status = child.wait().context("cannot wait for the tests")?;
    Ok(with_status(total, status))
}

/// Shows what a test runner prints but for its summaries, which are added up.
fn show(printed: impl Read, failures: &mut Failures) -> anyhow::Result<Tally> {
    let mut total = Tally::default();
    for line in BufReader::new(printed).split(b'\n') {
        let line = line.context("cannot read from the tests")?;
        let line = String::from_utf8_lossy(&line);
        match summary(&line) {
            Some(tally) => total += tally,
            None => {
                failures.read(&line);
                println!("{line}");
            }
        }
    }
    Ok(total)
}

/// A runner that fails without a failed test did not build or did not start: that is one failure.
fn with_status(mut total: Tally, status: ExitStatus) -> Tally {
    if !status.success() && total.failed == 0 {
        println!("the tests did not run to their end: {status}");
        total.failed = 1;
    }
    total
}

/// Reads the summary line of cargo test, nextest or vmtest; of anything else, nothing.
fn summary(line: &str) -> Option<Tally> {
    let line = line.trim();
    let is_summary = line.starts_with("test result:")
        || (line.starts_with("Summary [") && line.contains("run:"))
        || line.ends_with(" skipped") && line.starts_with(|c: char| c.is_ascii_digit());
    if !is_summary {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let count = |kind: &str| {
        words
            .windows(2)
            .filter(|pair| pair[1].trim_matches([',', ';', ')']) == kind)
            .find_map(|pair| pair[0].parse().ok())
            .unwrap_or(0)
    };
    Some(Tally {
        passed: count("passed"),
        failed: count("failed") + count("exec-failed"),
        skipped: count("skipped") + count("ignored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summaries_of_all_three_runners_are_understood() {
        for (line, passed, failed, skipped) in [
            (
                "test result: ok. 17 passed; 0 failed; 2 ignored; 0 measured; 5 filtered out",
                17,
                0,
                2,
            ),
            (
                "     Summary [   0.313s] 17 tests run: 16 passed (1 slow), 1 failed, 3 skipped",
                16,
                1,
                3,
            ),
            (
                "     Summary [   0.313s] 17 tests run: 17 passed, 0 skipped",
                17,
                0,
                0,
            ),
            ("12 passed, 1 failed, 2 skipped", 12, 1, 2),
        ] {
            assert_eq!(
                summary(line),
                Some(Tally {
                    passed,
                    failed,
                    skipped
                }),
                "{line}"
            );
        }
    }

    #[test]
    fn a_line_that_mentions_tests_is_no_summary() {
        for line in [
            "PASS  3 passed the gate",
            "running 3 tests",
            "",
            "2 more were skipped here",
        ] {
            assert_eq!(summary(line), None, "{line}");
        }
    }
}
