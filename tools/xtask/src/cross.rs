//! The arm64 toolchain: Debian's own compiler with its arm64 standard library, since rustup's may
//! come without that target.

use std::path::Path;
use std::process::Command;

/// The target that `ccvm run` is for.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

const RUSTC: &str = "/usr/bin/rustc";
const CLIPPY: &str = "/usr/bin/cargo-clippy";
const LINKER: &str = "aarch64-linux-gnu-gcc";

/// How arm64 code can be checked here.
pub(crate) enum Lint {
    /// With clippy.
    Clippy(Command),
    /// By the compiler alone, with the package that would bring clippy.
    Check(Command, &'static str),
    /// Not at all, and why.
    Unavailable(String),
}

/// The command that lints the workspace for arm64, ready for the arguments after `--target`.
pub(crate) fn lint() -> Lint {
    if cfg!(target_arch = "aarch64") {
        return Lint::Unavailable(
            "this machine is arm64: the lint of the host covers it".to_owned(),
        );
    }
    if let Err(reason) = toolchain() {
        return Lint::Unavailable(format!("{reason}; 'cargo xtask images' installs it"));
    }
    if Path::new(CLIPPY).exists() {
        let mut command = cargo(CLIPPY);
        command.arg("clippy");
        return Lint::Clippy(command);
    }
    let mut command = cargo("cargo");
    command.arg("check");
    Lint::Check(command, "rust-web-clippy")
}

fn toolchain() -> Result<(), String> {
    let answers = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
    if !answers(Command::new(LINKER).arg("--version")) {
        return Err(format!("{LINKER} is not installed"));
    }
    let libraries = Command::new(RUSTC)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    let present = libraries.is_ok_and(|out| {
        let path = String::from_utf8_lossy(&out.stdout);
        Path::new(path.trim()).is_dir()
    });
    if !present {
        return Err(format!("{RUSTC} has no standard library for {TARGET}"));
    }
    Ok(())
}

/// A command with which cargo, or a tool that stands for it, builds for arm64.
fn cargo(program: &str) -> Command {
    let mut command = Command::new(program);
    // Another compiler than the host's: in one target directory each would undo the other's work.
    command
        .env("RUSTC", RUSTC)
        .env("CARGO_TARGET_DIR", "target/cross")
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        .env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        );
    command
}
