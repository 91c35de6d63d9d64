//! The distribution packages that the testbed needs on this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::Install;
use crate::arch::Arch;
use crate::progress;

/// A program that must be there, and the Debian package that has it.
#[derive(Clone, Copy)]
pub(super) struct Need {
    /// Found on `PATH`, or as a file when it starts with a slash.
    pub(super) program: &'static str,
    pub(super) package: &'static str,
}

impl Need {
    pub(super) const fn new(program: &'static str, package: &'static str) -> Self {
        Self { program, package }
    }
}

const NEEDS: &[Need] = &[Need::new("xz", "xz-utils"), Need::new("dpkg-deb", "dpkg")];

/// What links programs for an architecture that this machine has not.
fn linker(arch: Arch) -> [Need; 2] {
    match arch {
        Arch::Arm64 => [
            Need::new("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
            Need::new("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
        ],
        Arch::X86_64 => [
            Need::new("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
            Need::new("/usr/x86_64-linux-gnu/lib/libc.a", "libc6-dev-amd64-cross"),
        ],
    }
}

/// Checks that the programs which a host of `arch` takes are here, and installs what is not.
///
/// # Errors
/// Names the missing packages and the command that installs them.
pub(super) fn require(arch: Arch, install: Install) -> anyhow::Result<()> {
    let cross = (!arch.is_here()).then(|| linker(arch));
    let missing: Vec<&str> = NEEDS
        .iter()
        .chain(cross.iter().flatten())
        .filter(|need| !is_present(need.program))
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(install, &missing, &[])
}

/// Checks that tests of arm64 code run here, and installs what runs them: the launches on scripted kernels.
///
/// # Errors
/// As [`require`].
pub(super) fn require_user_emulator(install: Install) -> anyhow::Result<()> {
    let need = Need::new("qemu-aarch64-static", "qemu-user-static");
    if Arch::Arm64.is_here() || is_present(need.program) {
        return Ok(());
    }
    install_packages(install, &[need.package], &[])
}

/// Installs packages by apt, after `setup` commands such as adding an architecture.
///
/// # Errors
/// When it may not or cannot: the error holds the commands for the operator.
pub(super) fn install_packages(
    install: Install,
    packages: &[&str],
    setup: &[&[&str]],
) -> anyhow::Result<()> {
    let commands = apt_commands(packages, setup);
    let by_hand = commands
        .iter()
        .map(|command| format!("  sudo {}", command.join(" ")))
        .collect::<Vec<_>>()
        .join("\n");
    let names = packages.join(", ");
    if install == Install::Forbidden {
        bail!("missing packages: {names}; install them with\n{by_hand}");
    }
    if !is_present("apt-get") {
        bail!(
            "missing: {names} (these are Debian's names), and there is no apt-get to install them"
        );
    }
    if !is_root() {
        bail!("missing packages: {names}; installing needs root, so run\n{by_hand}");
    }
    progress::step(&format!("install {names}"), || {
        for command in &commands {
            apt(command).with_context(|| format!("by hand:\n{by_hand}"))?;
        }
        Ok(())
    })
}

fn apt_commands<'a>(packages: &[&'a str], setup: &[&[&'a str]]) -> Vec<Vec<&'a str>> {
    let mut commands: Vec<Vec<&str>> = setup.iter().map(|command| command.to_vec()).collect();
    commands.push(vec!["apt-get", "update"]);
    let mut command = vec!["apt-get", "install", "-y", "--no-install-recommends"];
    command.extend(packages);
    commands.push(command);
    commands
}

fn apt(command: &[&str]) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    super::output_of(&mut command).map(drop)
}

/// Whether a program is on `PATH`, or an absolute path exists.
pub(super) fn is_present(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_permission_the_error_names_the_packages_and_the_command() {
        let setup: &[&[&str]] = &[&["dpkg", "--add-architecture", "arm64"]];
        let error = install_packages(Install::Forbidden, &["one", "two"], setup).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("missing packages: one, two"), "{text}");
        assert!(
            text.contains("sudo dpkg --add-architecture arm64"),
            "{text}"
        );
        assert!(
            text.contains("sudo apt-get install -y --no-install-recommends one two"),
            "{text}"
        );
    }
}
