//! The VM tests: those of both architectures at the same time, where all are to run.
//!
//! ```text
//!   vmtest images ──┬── vmtest test --arch arm64  ── shown as it comes ──────┐
//!                   └── vmtest test --arch x86_64 ── kept ── shown after it ─┴── one tally
//! ```
//! An emulated host keeps little more than one processor busy: on two, both take hardly longer than one.

use std::io::{self, Read as _};
use std::process::Command;
use std::thread;

use anyhow::Context;

use super::failures::Failures;
use super::{Args, Stream, Tally, show, tally, with_status};
use crate::vmtest;

/// Runs them.
pub(super) fn run(args: &Args, failures: &mut Failures) -> anyhow::Result<Tally> {
    println!("==> VM tests");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if args.filter.is_none() && args.arch.is_none() && !args.on_host && processors > 1 {
        at_once(args, failures)
    } else {
        tally(
            &mut command(args, args.arch.as_deref()),
            Stream::Output,
            failures,
        )
    }
}

fn at_once(args: &Args, failures: &mut Failures) -> anyhow::Result<Tally> {
    // Two that install packages at the same time would be in each other's way. What is missing is named by each
    // test that it keeps from running.
    let mut images = vmtest::command("images");
    images.args(args.no_install.then_some("--no-install"));
    images.status().context("cannot start cargo")?;
    println!("those of x86_64 run meanwhile and are shown after those of arm64");
    let (mut printed, writer) = io::pipe().context("cannot make a pipe")?;
    let mut second = command(args, Some("x86_64"));
    let errors = writer.try_clone().context("cannot make a pipe")?;
    let child = second.stdout(writer).stderr(errors).spawn();
    let mut child = child.context("cannot start the tests")?;
    // The command holds ends of the pipe, which would then never end.
    drop(second);
    let kept = thread::spawn(move || {
        let mut kept = Vec::new();
        printed.read_to_end(&mut kept).map(|_| kept)
    });
    let first = tally(&mut command(args, Some("arm64")), Stream::Output, failures);
    let status = child.wait().context("cannot wait for the tests")?;
    let kept = kept.join().unwrap_or_else(|_| Ok(Vec::new()));
    let kept = kept.context("cannot read from the tests")?;
    let second = with_status(show(kept.as_slice(), failures)?, status);
    let mut total = first?;
    total += second;
    Ok(total)
}

/// The command line that runs those of one architecture, or of all, one after the other.
fn command(args: &Args, arch: Option<&str>) -> Command {
    let mut vmtest = vmtest::command("test");
    let flags = [
        ("--no-install", args.no_install),
        ("--on-host", args.on_host),
    ];
    vmtest.args(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag));
    let values = [
        ("--filter", args.filter.as_deref()),
        ("--arch", arch),
        ("--report", args.report.as_deref()),
    ];
    for (option, value) in values {
        vmtest.args(value.iter().flat_map(|value| [option, value]));
    }
    vmtest.args(args.device.iter().flat_map(|device| ["--device", device]));
    vmtest.args(args.scratch.iter().flat_map(|disk| ["--scratch", disk]));
    vmtest
}
