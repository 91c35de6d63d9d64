//! Running commands and saying so.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

/// Announces a step, runs it, and says how long it took.
///
/// # Errors
/// The step's own.
pub(crate) fn step<T>(name: &str, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("==> {name}");
    let start = Instant::now();
    let value = run().with_context(|| format!("{name} failed"))?;
    eprintln!("    ok, {:.1} s", start.elapsed().as_secs_f64());
    Ok(value)
}

/// Says that a step is left out, and why.
pub(crate) fn skip(name: &str, reason: &str) {
    eprintln!("==> {name}\n    SKIP: {reason}");
}

/// Runs a command with this process's own output.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}
