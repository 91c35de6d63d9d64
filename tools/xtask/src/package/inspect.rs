//! Whether a package has what it must, as it must be.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{Arch, metadata, output};
use crate::progress::{run, skip};

/// What must be in it, with the mode that `dpkg-deb --contents` shows.
const CONTENTS: [(&str, &str); 13] = [
    ("drwxr-xr-x", "./etc/ccvm/"),
    ("-rwxr-xr-x", "./usr/bin/ccvm"),
    ("-rw-r--r--", "./usr/lib/systemd/system/ccvm@.service"),
    ("-rw-r--r--", "./usr/share/bash-completion/completions/ccvm"),
    ("-rw-r--r--", "./usr/share/doc/ccvm/changelog.gz"),
    ("-rw-r--r--", "./usr/share/doc/ccvm/copyright"),
    ("-rw-r--r--", "./usr/share/doc/ccvm/crates.txt"),
    ("-rw-r--r--", "./usr/share/doc/ccvm/docs/guide.md"),
    ("-rw-r--r--", "./usr/share/doc/ccvm/examples/vm.toml"),
    (
        "-rw-r--r--",
        "./usr/share/fish/vendor_completions.d/ccvm.fish",
    ),
    ("-rw-r--r--", "./usr/share/man/man1/ccvm-run.1.gz"),
    ("-rw-r--r--", "./usr/share/man/man1/ccvm.1.gz"),
    ("-rw-r--r--", "./usr/share/zsh/vendor-completions/_ccvm"),
];

/// Modes that files and folders may have.
const MODES: [&str; 3] = ["drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--"];

/// An entry of a package.
struct Entry<'l> {
    mode: &'l str,
    owner: &'l str,
    path: &'l str,
}

/// Fails when `package` is not as it must be.
pub(super) fn check(package: &Path, arch: Arch) -> anyhow::Result<()> {
    let listing = output(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    contents(&listing)?;
    for (field, expected) in [
        ("Package", "ccvm"),
        ("Version", metadata::version()),
        ("Architecture", arch.debian()),
    ] {
        let mut dpkg = Command::new("dpkg-deb");
        let value = output(dpkg.arg("--field").arg(package).arg(field))?;
        ensure!(value.trim() == expected, "{field} is {value}");
    }
    if arch == Arch::here() {
        installed(package)?;
    }
    lint(package)
}

fn contents(listing: &str) -> anyhow::Result<()> {
    let entries = listing
        .lines()
        .map(entry)
        .collect::<Option<Vec<_>>>()
        .context("dpkg-deb lists it in another form")?;
    for entry in &entries {
        ensure!(entry.owner == "root/root", "{} is not root's", entry.path);
        ensure!(
            MODES.contains(&entry.mode),
            "{}: {}",
            entry.path,
            entry.mode
        );
    }
    for (mode, path) in CONTENTS {
        match entries.iter().find(|entry| entry.path == path) {
            Some(entry) => ensure!(entry.mode == mode, "{path} has mode {}", entry.mode),
            None => bail!("it has no {path}"),
        }
    }
    Ok(())
}

/// `MODE OWNER/GROUP SIZE DATE TIME PATH`
fn entry(line: &str) -> Option<Entry<'_>> {
    let mut words = line.split_whitespace();
    let (mode, owner) = (words.next()?, words.next()?);
    let path = words.nth(3)?;
    Some(Entry { mode, owner, path })
}

/// Unpacks it, and looks at what is in it as its user would.
fn installed(package: &Path) -> anyhow::Result<()> {
    let root = package.with_extension("unpacked");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(package)
        .arg(&root))?;
    let program = root.join("usr/bin/ccvm");
    let version = output(Command::new(&program).arg("--version"))?;
    ensure!(
        version.trim_end() == format!("ccvm {}", metadata::version()),
        "{version}"
    );
    let example = root.join("usr/share/doc/ccvm/examples/vm.toml");
    let facts = "tests/fixtures/hosts/qemu-virt.json";
    let mut check = Command::new(&program);
    output(check.arg("check").arg(example).args(["--host", facts]))?;
    unit(&root)?;
    Ok(std::fs::remove_dir_all(root)?)
}

/// systemd finds the program of the unit below the root that it is told of.
fn unit(root: &Path) -> anyhow::Result<()> {
    let analyze = || Command::new("systemd-analyze");
    if !analyze()
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success())
    {
        skip("the systemd unit", "systemd-analyze is not installed");
        return Ok(());
    }
    // An instance has a name, and here its program lies elsewhere.
    let text = std::fs::read_to_string(root.join("usr/lib/systemd/system/ccvm@.service"))?;
    let program = std::fs::canonicalize(root.join("usr/bin/ccvm"))?;
    let text = text.replace("/usr/bin/ccvm", &program.to_string_lossy());
    let instance = root.join("ccvm@vm.service");
    std::fs::write(&instance, text)?;
    let mut verify = analyze();
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    run(verify.arg(instance))
}

fn lint(package: &Path) -> anyhow::Result<()> {
    let installed = Command::new("lintian").arg("--version").output();
    if !installed.is_ok_and(|out| out.status.success()) {
        skip("lintian", "it is not installed");
        return Ok(());
    }
    // Static programs, and a package that is not uploaded to Debian.
    let suppressed = "statically-linked-binary,initial-upload-closes-no-bugs";
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error", "--suppress-tags", suppressed]);
    run(lintian.arg(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> String {
        let line = |(mode, path): (&str, &str)| {
            format!("{mode} root/root      100 2026-09-01 10:00 {path}\n")
        };
        CONTENTS.map(line).concat()
    }

    #[test]
    fn what_is_missing_or_not_as_it_must_be_is_named() {
        contents(&listing()).unwrap();
        for (from, to, part) in [
            ("./usr/bin/ccvm\n", "./usr/bin/other\n", "no ./usr/bin/ccvm"),
            ("-rwxr-xr-x", "-rw-r--r--", "./usr/bin/ccvm has mode"),
            ("root/root", "me/me", "not root's"),
            ("-rw-r--r--", "-rw-rw-r--", "-rw-rw-r--"),
            (" 10:00", "", "another form"),
        ] {
            let error = contents(&listing().replacen(from, to, 1)).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{part}: {error:#}");
        }
    }
}
