//! Handing a task to the package `vmtest`, which holds all that knows of VMs.

use std::process::Command;

use anyhow::{Context, bail};

/// The command line that builds and starts `vmtest`.
pub(crate) fn command(task: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--package", "vmtest", "--", task]);
    cargo
}

/// Runs a task whose output and exit code speak for themselves.
pub(crate) fn run(task: &str, arguments: &[String]) -> anyhow::Result<()> {
    let status = command(task)
        .args(arguments)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("{task} failed");
    }
    Ok(())
}
