//! Building ccvm for arm64, on an arm64 machine or across.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::packages::{install_packages, is_present};
use super::{Install, output_of};
use crate::progress;

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Comes with the linker.
const OBJCOPY: &str = if cfg!(target_arch = "aarch64") {
    "objcopy"
} else {
    "aarch64-linux-gnu-objcopy"
};
/// The oldest compiler that builds the workspace, as in its `rust-version`.
const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// The programs under test, static, for arm64.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The `ccvm` command.
    pub ccvm: PathBuf,
    /// The bare-metal guest, a flat kernel image.
    pub payload: PathBuf,
}

/// The repository's root.
#[must_use]
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// How the programs under test are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Optimised, with all assertions: for tests.
    Testbed,
    /// As users run it: for figures.
    Release,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Testbed => "testbed",
            Self::Release => "release",
        }
    }
}

/// A compiler that has the standard library for arm64.
#[derive(Debug)]
pub(super) struct Toolchain {
    rustc: PathBuf,
}

impl Toolchain {
    /// Builds the programs under test.
    pub(super) fn build(&self, profile: Profile) -> anyhow::Result<Binaries> {
        let built = self.target_dir().join(TARGET);
        progress::step("build ccvm for arm64", || {
            let mut cargo = self.cargo();
            cargo.args(["build", "--quiet", "--package", "ccvm", "--target", TARGET]);
            cargo.args(["--profile", profile.name()]);
            output_of(&mut cargo).map(drop)
        })?;
        let payload = built.join("release/guest.bin");
        progress::step("build the bare-metal guest", || {
            let mut cargo = self.cargo();
            cargo.args(["build", "--quiet", "--release", "--target", TARGET]);
            cargo.args(["--manifest-path", "tests/guest/Cargo.toml"]);
            output_of(&mut cargo)?;
            let mut flatten = Command::new(OBJCOPY);
            flatten
                .args(["-O", "binary"])
                .arg(built.join("release/guest"))
                .arg(&payload);
            output_of(&mut flatten).map(drop)
        })?;
        let ccvm = built.join(profile.name()).join("ccvm");
        Ok(Binaries { ccvm, payload })
    }

    /// Finds a compiler for arm64, or installs one.
    pub(super) fn find(install: Install) -> anyhow::Result<Self> {
        if let Some(toolchain) = Self::present() {
            return Ok(toolchain);
        }
        if install == Install::Allowed && is_present("rustup") && add_target().is_ok() {
            return Self::present().context("rustup added the target, but rustc does not have it");
        }
        install_packages(
            install,
            &["rustc-web", "libstd-rust-web-dev:arm64"],
            &[&["dpkg", "--add-architecture", "arm64"]],
        )
        .with_context(|| {
            format!("no Rust {OLDEST_RUST} with the target {TARGET}; `rustup target add {TARGET}` gives it, too")
        })?;
        Self::present().context("the installed rustc lacks the target")
    }

    fn present() -> Option<Self> {
        ["rustc", "/usr/bin/rustc"]
            .into_iter()
            .filter(|rustc| has_target(rustc).unwrap_or(false))
            .map(|rustc| Self {
                rustc: rustc.into(),
            })
            .next()
    }

    /// A build of its own next to the workspace's, since another compiler may be at work.
    fn target_dir(&self) -> PathBuf {
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target
            .unwrap_or_else(|| repository().join("target"))
            .join("cross")
    }

    fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(repository())
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_DIR", self.target_dir())
            .env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                "-Ctarget-feature=+crt-static",
            );
        if !cfg!(target_arch = "aarch64") {
            cargo.env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
                "aarch64-linux-gnu-gcc",
            );
        }
        cargo
    }
}

fn add_target() -> anyhow::Result<()> {
    progress::step(&format!("rustup target add {TARGET}"), || {
        output_of(Command::new("rustup").args(["target", "add", TARGET])).map(drop)
    })
}

/// Whether a compiler is there, is new enough, and has the standard library for arm64.
fn has_target(rustc: &str) -> anyhow::Result<bool> {
    let version = output_of(Command::new(rustc).arg("--version"))?;
    let Some(version) = version.split_whitespace().nth(1) else {
        bail!("{rustc} does not say its version");
    };
    let mut ask = Command::new(rustc);
    let libraries = output_of(ask.args(["--print", "target-libdir", "--target", TARGET]))?;
    let has_std = Path::new(libraries.trim()).read_dir().is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    });
    Ok(has_std && numbers(version) >= numbers(OLDEST_RUST))
}

fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}
