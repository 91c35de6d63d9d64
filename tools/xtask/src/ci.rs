//! `cargo xtask ci`: what a change must pass.

use std::process::Command;

use crate::progress::{run, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stop before the tests
    #[arg(long)]
    no_tests: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    step("format", || {
        run(Command::new("cargo").args(["fmt", "--all", "--check"]))
    })?;
    if !args.no_tests {
        crate::test::main(&crate::test::Args {})?;
    }
    Ok(())
}
