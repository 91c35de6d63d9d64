//! `cargo xtask ci`: what a change must pass.

use std::path::Path;
use std::process::Command;

use crate::cross::{self, Lint};
use crate::progress::{run, skip, step};
use crate::{direction, licences, package, tidy};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stop before the tests
    #[arg(long)]
    no_tests: bool,
    /// Leave out the checks that build everything once more: lint of arm64 code, documentation, package
    #[arg(long)]
    brief: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    step("format", || run(&mut cargo(["fmt", "--all", "--check"])))?;
    step("tidy", || tidy::check(Path::new(".")))?;
    step("dependency direction", direction::check)?;
    licences::check()?;
    step("clippy", || {
        run(&mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    if !args.brief {
        build_again()?;
    }
    if !args.no_tests {
        crate::test::main(&crate::test::Args::default())?;
    }
    Ok(())
}

/// The checks that take a build of their own.
fn build_again() -> anyhow::Result<()> {
    lint_arm64()?;
    step("rustdoc", || {
        run(cargo([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        .env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    package::rehearse()
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments);
    command
}

/// Code for arm64 is not seen by the lint of another host.
fn lint_arm64() -> anyhow::Result<()> {
    let targets = ["--target", cross::TARGET, "--workspace", "--all-targets"];
    match cross::lint() {
        Lint::Clippy(mut command) => step("clippy for arm64", || {
            run(command.args(targets).args(["--", "-D", "warnings"]))
        }),
        Lint::Check(mut command, missing) => {
            skip("clippy for arm64", &format!("{missing} is not installed"));
            step("check for arm64", || run(command.args(targets)))
        }
        Lint::Unavailable(reason) => {
            skip("clippy for arm64", reason);
            Ok(())
        }
    }
}
