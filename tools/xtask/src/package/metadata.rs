//! What a package says of itself.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::Context;

use super::{Arch, output};

const MAINTAINER: &str = "The ccvm authors <maintainers@ccvm.invalid>";

/// That of the workspace.
pub(super) const fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The control file of a package that takes `kib` KiB.
pub(super) fn control(arch: Arch, kib: u64) -> String {
    format!(
        "Package: ccvm\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {kib}\n\
         Section: admin\n\
         Priority: optional\n\
         Description: monitor for confidential VMs with assigned devices\n \
         ccvm runs virtual machines on KVM. It plans the guest-physical address space from\n \
         the DMA widths of the devices that a VM gets, refuses what cannot work and says why,\n \
         and keeps the IOMMU right while a confidential guest converts its pages.\n \
         .\n \
         /etc/ccvm/NAME.toml describes a VM; ccvm@NAME.service runs it.\n",
        version(),
        arch.debian()
    )
}

/// When the last change was made, in seconds of Unix time: packages of the same commit are equal.
pub(super) fn epoch() -> anyhow::Result<u64> {
    let text = output(Command::new("git").args(["log", "-1", "--format=%ct"]))?;
    text.trim().parse().context("git does not tell a time")
}

pub(super) fn changelog() -> anyhow::Result<String> {
    let epoch = format!("@{}", epoch()?);
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", "--date", &epoch]);
    let date = output(&mut date)?;
    let version = version();
    Ok(format!(
        "ccvm ({version}) unstable; urgency=medium\n\n  * Version {version}.\n\n -- {MAINTAINER}  {date}"
    ))
}

/// The crates in the program, with version and licence, one a line.
pub(super) fn crates(arch: Arch) -> anyhow::Result<String> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "tree",
        "--offline",
        "--package",
        "ccvm",
        "--edges",
        "normal",
    ]);
    cargo.args(["--prefix", "none", "--format", "{p}\t{l}"]);
    let tree = output(cargo.args(["--target", arch.target()]))?;
    let mut lines = BTreeSet::new();
    for line in tree.lines() {
        let (package, licence) = line.split_once('\t').unwrap_or((line, ""));
        // Crates of the workspace have a path behind their version, crates of the registry nothing.
        if !package.contains('/') && !package.is_empty() {
            let package = package.trim_end_matches(" (proc-macro)");
            let licence = licence.trim_end_matches(" (*)");
            lines.insert(format!("{package}: {licence}\n"));
        }
    }
    Ok(lines.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_is_one_paragraph() {
        let control = control(Arch::Arm64, 4096);
        assert!(control.contains("Architecture: arm64\n"), "{control}");
        assert!(!control.contains("\n\n"), "{control}");
        for line in control.lines() {
            let continues = line.starts_with(' ');
            assert!(continues || line.contains(": "), "{line:?}");
            assert!(line.len() <= 90, "{line:?}");
        }
    }

    #[test]
    fn crates_are_named_with_their_licences_and_no_path() {
        let crates = crates(Arch::Amd64).unwrap();
        assert!(crates.contains("clap v4"), "{crates}");
        assert!(
            !crates.contains('/') || crates.contains("MIT/Apache-2.0"),
            "{crates}"
        );
        for line in crates.lines() {
            let (_, licence) = line.split_once(": ").unwrap();
            assert!(!licence.is_empty(), "{line}");
        }
    }
}
