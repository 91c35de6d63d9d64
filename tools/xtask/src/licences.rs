//! Licences, duplicate crates and sources, by cargo-deny where it is installed.

use std::process::Command;

use crate::progress::{run, skip, step};

/// Runs the checks of `tools/deny.toml` that need no network.
///
/// # Errors
/// What cargo-deny found.
pub(crate) fn check() -> anyhow::Result<()> {
    let name = "licences, bans and sources";
    let installed = Command::new("cargo-deny").arg("--version").output();
    if !installed.is_ok_and(|out| out.status.success()) {
        skip(name, "cargo-deny is not installed");
        return Ok(());
    }
    step(name, || {
        run(Command::new("cargo-deny").args([
            "--offline",
            "--config=tools/deny.toml",
            "check",
            "licenses",
            "bans",
            "sources",
        ]))
    })
}
