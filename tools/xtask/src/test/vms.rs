//! The VM tests: in two rows at the same time, where all are to run.
//!
//! ```text
//!   vmtest images ─┬─ arm64, most hosts ──────────────── shown as it comes ───────┐
//!                  └─ x86_64 ── arm64, other hosts ───── kept ── shown afterwards ┴─ one tally
//! ```
//! An emulated host keeps little more than one processor busy: on two, both rows take hardly longer than one.

use std::io::{self, Read as _};
use std::process::{Command, ExitStatus};
use std::thread;

use anyhow::{Context, anyhow};

use super::failures::Failures;
use super::{Args, Stream, Tally, show, tally, with_status};
use crate::vmtest;

/// Some of the VM tests.
#[derive(Default)]
struct Part<'a> {
    arch: Option<&'a str>,
    /// Of hosts with these kernels only; without any, of all.
    host_kernels: &'a [&'a str],
}

/// Those that are shown as they come; they take about as long as the rest.
const SHOWN: Part<'_> = Part {
    arch: Some("arm64"),
    host_kernels: &["distribution"],
};

/// The rest.
const KEPT: [Part<'_>; 2] = [
    Part {
        arch: Some("x86_64"),
        host_kernels: &[],
    },
    Part {
        arch: Some("arm64"),
        host_kernels: &["own", "pkvm"],
    },
];

/// Runs them.
pub(super) fn run(args: &Args, failures: &mut Failures) -> anyhow::Result<Tally> {
    println!("==> VM tests");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    // A report is of an architecture as a whole.
    let is_whole = args.filter.is_none() && args.arch.is_none() && args.report.is_none();
    if is_whole && !args.on_host && processors > 1 {
        return in_two_rows(args, failures);
    }
    let part = Part {
        arch: args.arch.as_deref(),
        ..Part::default()
    };
    tally(&mut part.command(args), Stream::Output, failures)
}

fn in_two_rows(args: &Args, failures: &mut Failures) -> anyhow::Result<Tally> {
    // Two that install packages at the same time would be in each other's way. What is missing is named by each
    // test that it keeps from running.
    let mut images = vmtest::command("images");
    images.args(args.no_install.then_some("--no-install"));
    images.status().context("cannot start cargo")?;
    println!("those of x86_64 run meanwhile, and are shown at the end");
    thread::scope(|scope| {
        let row = scope.spawn(|| {
            let parts = KEPT.iter().map(|part| keep(&mut part.command(args)));
            parts.collect::<anyhow::Result<Vec<_>>>()
        });
        let shown = tally(&mut SHOWN.command(args), Stream::Output, failures);
        let kept = row
            .join()
            .map_err(|_| anyhow!("the thread of the tests has ended"))??;
        let mut total = shown?;
        for (printed, status) in kept {
            total += with_status(show(printed.as_slice(), failures)?, status);
        }
        Ok(total)
    })
}

/// Runs a command, and keeps all that it prints.
fn keep(command: &mut Command) -> anyhow::Result<(Vec<u8>, ExitStatus)> {
    let (mut reader, writer) = io::pipe().context("cannot make a pipe")?;
    let errors = writer.try_clone().context("cannot make a pipe")?;
    let child = command.stdout(writer).stderr(errors).spawn();
    let mut child = child.context("cannot start the tests")?;
    // The command keeps its ends of the pipe, which would never end.
    command.stdout(io::stdout()).stderr(io::stderr());
    let mut printed = Vec::new();
    let read = reader.read_to_end(&mut printed);
    read.context("cannot read from the tests")?;
    let status = child.wait().context("cannot wait for the tests")?;
    Ok((printed, status))
}

impl Part<'_> {
    fn command(&self, args: &Args) -> Command {
        let mut vmtest = vmtest::command("test");
        let flags = [
            ("--no-install", args.no_install),
            ("--on-host", args.on_host),
        ];
        vmtest.args(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag));
        let values = [
            ("--filter", args.filter.as_deref()),
            ("--arch", self.arch),
            ("--report", args.report.as_deref()),
        ];
        for (option, value) in values {
            vmtest.args(value.iter().flat_map(|value| [option, value]));
        }
        let kernels = self.host_kernels.iter();
        vmtest.args(kernels.flat_map(|kernel| ["--host-kernel", kernel]));
        vmtest.args(args.device.iter().flat_map(|device| ["--device", device]));
        vmtest.args(args.scratch.iter().flat_map(|disk| ["--scratch", disk]));
        vmtest
    }
}
