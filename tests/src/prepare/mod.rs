//! What a machine needs before a VM test can run: packages, a kernel, a cross-built ccvm.
//!
//! Everything that is fetched lives in one cache outside the repository, named by
//! `$CCVM_CACHE` and `~/.cache/ccvm` by default. Nothing is fetched or installed twice.

mod archive;
mod build;
mod kernel;
mod packages;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

pub use archive::Archive;
pub use build::{Binaries, Profile, repository};
pub use kernel::GuestFiles;

/// Whether missing packages may be installed on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// Yes, by apt.
    Allowed,
    /// No: name what is missing instead.
    Forbidden,
}

/// What must be on this machine before anything can be built or booted.
#[derive(Debug)]
pub struct Requirements {
    guest: GuestFiles,
    toolchain: build::Toolchain,
}

/// What every VM test starts from.
#[derive(Debug)]
pub struct Prepared {
    /// ccvm and the guest payload, for arm64.
    pub binaries: Binaries,
    /// The distribution's kernel and busybox.
    pub guest: GuestFiles,
}

/// Who plays the host, which decides what is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// The emulator.
    Testbed,
    /// This machine.
    Local,
}

/// Installs and fetches what is missing, saying what it does.
///
/// # Errors
/// Names what is missing and the command that would provide it.
pub fn require(kind: HostKind, install: Install, refresh: Refresh) -> anyhow::Result<Requirements> {
    packages::require(kind, install)?;
    let guest = kernel::guest_files(&cache()?, refresh)?;
    let toolchain = build::Toolchain::find(install)?;
    Ok(Requirements { guest, toolchain })
}

impl Requirements {
    /// Builds the programs under test.
    ///
    /// # Errors
    /// When they do not build.
    pub fn build(self, profile: Profile) -> anyhow::Result<Prepared> {
        let binaries = self.toolchain.build(profile)?;
        Ok(Prepared {
            binaries,
            guest: self.guest,
        })
    }
}

/// Whether to look for a newer kernel than the cached one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Use the cached kernel when there is one.
    WhenMissing,
    /// Ask the distribution's archive first.
    Always,
}

/// The cache folder, created when missing.
///
/// # Errors
/// When neither `CCVM_CACHE` nor `HOME` is set, or the folder cannot be created.
pub fn cache() -> anyhow::Result<PathBuf> {
    let path = match (env::var_os("CCVM_CACHE"), env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache/ccvm"),
        (None, None) => bail!("neither CCVM_CACHE nor HOME is set: there is no place for a cache"),
    };
    fs::create_dir_all(&path)
        .with_context(|| format!("cannot create the cache {}", path.display()))?;
    Ok(path)
}

/// Runs a command quietly and returns what it printed; its complaint is part of the error.
fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}\n{}", output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
