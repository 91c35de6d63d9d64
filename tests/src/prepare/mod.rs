//! What a machine needs before a VM test can run: packages, a kernel, ccvm for the host's architecture.
//!
//! Everything that is fetched lives in one cache outside the repository, named by
//! `$CCVM_CACHE` and `~/.cache/ccvm` by default. Nothing is fetched or installed twice.

mod archive;
mod build;
mod emulator;
mod host_programs;
mod kernel;
mod linkage;
mod own_kernel;
mod packages;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::arch::Arch;
use crate::progress;

pub use archive::Archive;
pub use build::{Binaries, Profile, repository};
pub use emulator::Emulator;
pub use host_programs::{HostPrograms, peer_for_arm64};
pub use kernel::GuestFiles;
pub use own_kernel::own_kernel;

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
    arch: Arch,
    emulator: Option<Emulator>,
    guest: GuestFiles,
    programs: HostPrograms,
    toolchain: build::Toolchain,
}

/// What every VM test starts from.
#[derive(Debug)]
pub struct Prepared {
    /// What all of it is for.
    pub arch: Arch,
    /// What emulates the host, unless this machine plays it.
    pub emulator: Option<Emulator>,
    /// ccvm and the programs of its guests.
    pub binaries: Binaries,
    /// The distribution's kernel and busybox.
    pub guest: GuestFiles,
    /// Further programs of the distribution, for the testbed's host.
    pub programs: HostPrograms,
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
pub fn require(
    kind: HostKind,
    arch: Arch,
    install: Install,
    refresh: Refresh,
) -> anyhow::Result<Requirements> {
    packages::require(arch, install)?;
    let emulator = match kind {
        HostKind::Testbed => Some(emulator::emulator(&cache()?, arch, refresh)?),
        HostKind::Local => None,
    };
    let guest = kernel::guest_files(&cache()?, arch, refresh)?;
    let programs = match kind {
        HostKind::Testbed => {
            host_programs::host_programs(&cache()?, arch, refresh).unwrap_or_else(|error| {
                progress::note(&format!("tests that use them are skipped: {error:#}"));
                HostPrograms::default()
            })
        }
        // This machine has those that its operator has installed.
        HostKind::Local => HostPrograms::default(),
    };
    let toolchain = build::Toolchain::find(arch, install)?;
    Ok(Requirements {
        arch,
        emulator,
        guest,
        programs,
        toolchain,
    })
}

/// Installs what runs tests of arm64 code on a machine of another architecture.
///
/// # Errors
/// Names what is missing and the command that would provide it.
pub fn require_user_emulator(install: Install) -> anyhow::Result<()> {
    packages::require_user_emulator(install)
}

impl Requirements {
    /// Builds the programs under test.
    ///
    /// # Errors
    /// When they do not build.
    pub fn build(self, profile: Profile) -> anyhow::Result<Prepared> {
        let binaries = self.toolchain.build(profile)?;
        Ok(Prepared {
            arch: self.arch,
            emulator: self.emulator,
            binaries,
            guest: self.guest,
            programs: self.programs,
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

/// The leading `MAJOR.MINOR` of a version.
fn series(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
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
