//! The distribution's programs that tests use on the testbed's host (vhost-user daemons, tools for images and
//! block devices), and the libraries that these are linked with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::linkage::Linkage;
use super::{Archive, Refresh, output_of};
use crate::arch::Arch;
use crate::progress;

/// What of the distribution a host gets.
struct Selection {
    /// The cache's folder for it.
    folder: &'static str,
    /// Programs, by their place in their package.
    programs: &'static [&'static str],
    /// What has the programs.
    packages: &'static [&'static str],
}

/// For tests.
const OF_TESTS: Selection = Selection {
    folder: "host-programs",
    programs: &[
        "usr/bin/qemu-storage-daemon",
        "usr/bin/qemu-img",
        "usr/libexec/virtiofsd",
        "usr/bin/passt",
        "usr/sbin/dmsetup",
    ],
    packages: &["qemu-utils", "virtiofsd", "passt", "dmsetup"],
};

/// Another VMM, whose devices ccvm's are measured beside.
const PEER: Selection = Selection {
    folder: "peer",
    programs: &["usr/bin/qemu-system-aarch64"],
    packages: &["qemu-system-arm"],
};

/// Programs and libraries of the host, by their path there.
#[derive(Debug, Clone, Default)]
pub struct HostPrograms(Vec<(String, PathBuf)>);

impl HostPrograms {
    /// Where each file is on the host, and where its content is here.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        let files = self.0.iter();
        files.map(|(path, content)| (path.as_str(), content.as_path()))
    }

    /// These and others; what both have is from the others.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        let files = self.0.iter().chain(&others.0).cloned();
        Self(files.collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

/// The cached programs for tests, or the newest ones that the archive has.
///
/// # Errors
/// When they are not cached, and the archive cannot be read or lacks one.
pub(super) fn host_programs(
    cache: &Path,
    arch: Arch,
    refresh: Refresh,
) -> anyhow::Result<HostPrograms> {
    cached(&OF_TESTS, cache, arch, refresh)
}

/// QEMU, as a VMM for guests of the emulated arm64 host.
///
/// # Errors
/// When it is not cached, and the archive cannot be read or lacks it.
pub fn peer_for_arm64(cache: &Path) -> anyhow::Result<HostPrograms> {
    cached(&PEER, cache, Arch::Arm64, Refresh::WhenMissing)
}

fn cached(
    selection: &Selection,
    cache: &Path,
    arch: Arch,
    refresh: Refresh,
) -> anyhow::Result<HostPrograms> {
    let root = cache.join(selection.folder).join(arch.debian());
    if refresh == Refresh::WhenMissing
        && let Ok(programs) = locate(selection, &root, arch)
    {
        return Ok(programs);
    }
    let what = format!("find the newest programs for the host of {arch}");
    progress::step(&what, || {
        let archive = Archive::open(cache, arch)?;
        let newest = selection.packages.iter().map(|name| archive.newest(name));
        let newest = newest.map(|package| package.map(|package| package.to_string()));
        archive.install(&newest.collect::<anyhow::Result<Vec<_>>>()?, &root)
    })?;
    locate(selection, &root, arch)
}

/// Finds the programs in a folder of unpacked packages, and all that they need.
fn locate(selection: &Selection, root: &Path, arch: Arch) -> anyhow::Result<HostPrograms> {
    let linkage = Linkage::of(arch);
    let libraries = linkage.libraries(root);
    let mut found = BTreeMap::new();
    found.insert(linkage.interpreter.to_owned(), linkage.loader(root)?);
    let mut todo = Vec::new();
    for program in selection.programs {
        let path = root.join(program);
        let name = path.file_name().context("a program has no name")?;
        found.insert(format!("/bin/{}", name.to_string_lossy()), path.clone());
        todo.push(path);
    }
    while let Some(file) = todo.pop() {
        for name in needed(&file)? {
            let path = libraries.join(&name);
            let there = format!("/lib/{name}");
            if there != linkage.interpreter && found.insert(there, path.clone()).is_none() {
                todo.push(path);
            }
        }
    }
    for path in found.values() {
        ensure!(path.is_file(), "{} is not there", path.display());
    }
    Ok(HostPrograms(found.into_iter().collect()))
}

/// The libraries that an ELF file names.
fn needed(file: &Path) -> anyhow::Result<Vec<String>> {
    // It reads files of every architecture, and comes with the linker.
    let listing = output_of(Command::new("readelf").args(["-d", "-W"]).arg(file))?;
    Ok(in_listing(&listing).map(str::to_owned).collect())
}

/// The names in lines such as `0x1 (NEEDED) Shared library: [libc.so.6]`.
fn in_listing(listing: &str) -> impl Iterator<Item = &str> {
    let needed = listing.lines().filter(|line| line.contains("(NEEDED)"));
    needed.filter_map(|line| {
        let (_, name) = line.split_once('[')?;
        name.split_once(']').map(|(name, _)| name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_two_selections_are_together_and_none_is_there_twice() {
        let programs = |files: &[(&str, &str)]| {
            let files = files
                .iter()
                .map(|(path, from)| ((*path).to_owned(), (*from).into()));
            HostPrograms(files.collect())
        };
        let ours = programs(&[("/bin/a", "1"), ("/lib/c", "1")]);
        let both = ours.with(&programs(&[("/bin/b", "2"), ("/lib/c", "2")]));
        let files: Vec<_> = both
            .files()
            .map(|(path, from)| (path, from.to_str()))
            .collect();
        assert_eq!(
            files,
            [
                ("/bin/a", Some("1")),
                ("/bin/b", Some("2")),
                ("/lib/c", Some("2"))
            ]
        );
    }

    #[test]
    fn the_libraries_that_a_program_names_are_read() {
        let listing = "Dynamic section at offset 0x1 contains 3 entries:\n\
                       \x20 Tag                Type        Name/Value\n\
                       \x200x0000000000000001 (NEEDED)    Shared library: [libz.so.1]\n\
                       \x200x0000000000000001 (NEEDED)    Shared library: [libc.so.6]\n\
                       \x200x000000000000000e (SONAME)    Library soname: [libx.so.2]\n";
        let names: Vec<&str> = in_listing(listing).collect();
        assert_eq!(names, ["libz.so.1", "libc.so.6"]);
    }
}
