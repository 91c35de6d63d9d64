//! The testbed for a developer: boots the emulated host with the working tree's ccvm, and runs commands.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the host prints goes to the developer"
)]

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::bed::Bed;
use crate::machine::{HostKernel, Machine, Script};
use crate::prepare::Prepared;

/// What to boot, and what to do there.
#[derive(Debug)]
pub struct Session<'a> {
    /// The host's kernel.
    pub kernel: HostKernel,
    /// Further files for `/ccvm`.
    pub files: &'a [PathBuf],
    /// A shell script; without one, each line of standard input is a script of its own.
    pub script: Option<String>,
    /// How long a script may take.
    pub limit: Duration,
}

/// Boots a host and runs what the developer wants; returns the last script's exit status.
///
/// # Errors
/// When the host does not come up, dies, or a script takes too long.
pub fn run(prepared: &Prepared, session: Session<'_>) -> anyhow::Result<i32> {
    let further = session.files.iter().map(|path| named(path));
    let further = further.collect::<anyhow::Result<_>>()?;
    let mut bed = Bed::boot_with(prepared, session.kernel, further)?;
    let outcome = serve(&mut bed, session.script, session.limit);
    if outcome.is_err() {
        eprintln!("logs and images are kept in {}", bed.keep().display());
    }
    outcome
}

fn named(path: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path
        .file_name()
        .with_context(|| format!("{} has no name", path.display()))?;
    Ok((name.to_string_lossy().into_owned(), content))
}

fn serve(bed: &mut Bed, script: Option<String>, limit: Duration) -> anyhow::Result<i32> {
    let host = bed.host(true);
    if let Some(text) = script {
        return show(host.machine, text, limit);
    }
    let mut status = 0;
    prompt();
    for line in io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        status = show(host.machine, line, limit)?;
        if status != 0 {
            eprintln!("[{status}]");
        }
        prompt();
    }
    Ok(status)
}

fn prompt() {
    eprint!("# ");
    // A prompt that does not show harms nothing.
    let _ = io::stderr().flush();
}

fn show(machine: &mut Machine, text: String, limit: Duration) -> anyhow::Result<i32> {
    let output = machine.watch(&Script { text, limit }, |line| println!("{line}"))?;
    Ok(output.status)
}
