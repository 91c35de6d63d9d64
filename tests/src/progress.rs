//! What a person who waits gets to see.
#![expect(
    clippy::print_stderr,
    reason = "this module is where progress is printed"
)]

use std::time::{Duration, Instant};

use anyhow::Context;

/// Only steps that took longer than this say how long they took.
const WORTH_SAYING: Duration = Duration::from_secs(2);

/// Announces a step, runs it, and says how long it took.
///
/// # Errors
/// The step's own, with the step's name.
pub fn step<T>(name: &str, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("  · {name}");
    let start = Instant::now();
    let value = run().with_context(|| format!("could not {name}"))?;
    if start.elapsed() > WORTH_SAYING {
        eprintln!("    {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(value)
}

/// Adds a remark to the step under way.
pub fn note(text: &str) {
    eprintln!("    {text}");
}
