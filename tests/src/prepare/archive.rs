//! Debian's package archive for one architecture, asked through apt with folders of its own.
//!
//! The machine's suites, package lists and installed packages stay as they are: apt gets a private
//! sources list, state and cache. Only the archive's address is taken from the machine.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::output_of;
use crate::arch::Arch;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package at one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.version)
    }
}

/// An up-to-date view of the archive.
#[derive(Debug)]
pub struct Archive {
    arch: Arch,
    root: PathBuf,
    // The lock ends with the file: apt does not wait for another in the same folders.
    _lock: File,
}

impl Archive {
    /// Sets up private apt folders in the cache and fetches the package lists.
    ///
    /// # Errors
    /// When the machine's apt names no Debian archive, or the archive cannot be reached.
    pub fn open(cache: &Path, arch: Arch) -> anyhow::Result<Self> {
        let root = cache.join("apt").join(arch.debian());
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        let lock = File::create(root.join("lock")).context("cannot lock apt's folders")?;
        lock.lock().context("cannot lock apt's folders")?;
        let archive = Self {
            arch,
            root,
            _lock: lock,
        };
        for folder in [
            "etc",
            "etc/none.d",
            "state/lists/partial",
            "cache/archives/partial",
        ] {
            let path = archive.root.join(folder);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        fs::write(archive.root.join("state/status"), "")
            .context("cannot write apt's status file")?;
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: it is in the package debian-archive-keyring");
        }
        let mut complaints = Vec::new();
        for uri in archive_uris()? {
            match archive.update(&uri) {
                Ok(()) => return Ok(archive),
                Err(error) => complaints.push(format!("{uri}: {error:#}")),
            }
        }
        bail!("no Debian archive could be read\n{}", complaints.join("\n"))
    }

    /// Reads the stable release and the newer packages rebuilt for it.
    ///
    /// Both go by the release's codename: a mirror's copy of the aliases `stable` and
    /// `stable-backports` was seen to lag by weeks.
    fn update(&self, uri: &str) -> anyhow::Result<()> {
        const ONLY_THE_RELEASE: &str = "Acquire::IndexTargets::deb::Packages::DefaultEnabled=false";
        self.write_sources(uri, &["stable"])?;
        let mut update = self.apt("apt-get");
        output_of(update.args(["-o", ONLY_THE_RELEASE, "update", "--error-on=any"]))?;
        let codename = self.codename()?;
        self.write_sources(uri, &[&codename, &format!("{codename}-backports")])?;
        output_of(self.apt("apt-get").args(["update", "--error-on=any"])).map(drop)
    }

    fn write_sources(&self, uri: &str, suites: &[&str]) -> anyhow::Result<()> {
        let sources: String = suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n"))
            .collect();
        fs::write(self.root.join("etc/sources.list"), sources).context("cannot write sources.list")
    }

    /// The codename in the release file that was fetched.
    fn codename(&self) -> anyhow::Result<String> {
        let lists = self.root.join("state/lists");
        for entry in fs::read_dir(&lists).context("cannot list apt's package lists")? {
            let path = entry.context("cannot list apt's package lists")?.path();
            if path.to_string_lossy().ends_with("_stable_InRelease") {
                let release = fs::read_to_string(&path).context("cannot read the release file")?;
                let codename = release
                    .lines()
                    .find_map(|line| line.strip_prefix("Codename: "));
                return codename
                    .map(str::to_owned)
                    .context("the release file has no codename");
            }
        }
        bail!("apt fetched no release file of the suite stable")
    }

    /// The newest version of a package.
    ///
    /// # Errors
    /// When the archive does not have the package.
    pub fn newest(&self, name: &str) -> anyhow::Result<Package> {
        let listing = output_of(self.apt("apt-cache").args(["madison", name]))?;
        let version = newest_in_madison(&listing)
            .with_context(|| format!("the archive has no package {name} for {}", self.arch))?;
        Ok(Package {
            name: name.to_owned(),
            version,
        })
    }

    /// Whether the archive has a package at this very version.
    ///
    /// # Errors
    /// When the archive cannot be asked.
    pub fn has(&self, package: &Package) -> anyhow::Result<bool> {
        let listing = output_of(self.apt("apt-cache").args(["madison", &package.name]))?;
        let mut versions = listing.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.any(|version| version.trim() == package.version))
    }

    /// A package and all that it depends on at its very version: the parts of one source package.
    ///
    /// # Errors
    /// When the archive cannot be asked.
    pub fn with_parts(&self, package: &Package) -> anyhow::Result<BTreeSet<Package>> {
        let mut parts = BTreeSet::new();
        let mut todo = VecDeque::from([package.clone()]);
        while let Some(next) = todo.pop_front() {
            let record = output_of(self.apt("apt-cache").args(["show", &next.to_string()]))?;
            todo.extend(exact_dependencies(&record).filter(|part| !parts.contains(part)));
            parts.insert(next);
        }
        Ok(parts)
    }

    /// Unpacks packages and all that they depend on into `root`, in place of what was there. A package is
    /// `NAME`, as the stable release has it, or `NAME=VERSION`.
    ///
    /// # Errors
    /// When a package cannot be had or the folder cannot be written.
    pub fn install(&self, names: &[String], root: &Path) -> anyhow::Result<()> {
        let mut simulation = self.apt("apt-get");
        simulation.args(["install", "--simulate", "--no-install-recommends"]);
        let packages: Vec<Package> = simulated(&output_of(simulation.args(names))?).collect();
        self.replace(&packages, root)
    }

    /// Unpacks packages into `root`, in place of what was there.
    ///
    /// # Errors
    /// As [`Self::unpack`].
    pub fn replace<'a>(
        &self,
        packages: impl IntoIterator<Item = &'a Package>,
        root: &Path,
    ) -> anyhow::Result<()> {
        let unpacking = root.with_extension("partial");
        for folder in [unpacking.as_path(), root] {
            if folder.exists() {
                fs::remove_dir_all(folder)
                    .with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
        fs::create_dir_all(&unpacking)
            .with_context(|| format!("cannot create {}", unpacking.display()))?;
        self.unpack(packages, &unpacking)?;
        // Only a whole folder gets the final name, so an interrupted run leaves nothing half done.
        fs::rename(&unpacking, root)
            .with_context(|| format!("cannot move packages to {}", root.display()))
    }

    /// Downloads packages and unpacks them, all into `target`.
    ///
    /// # Errors
    /// When a package cannot be had or `target` cannot be written.
    pub fn unpack<'a>(
        &self,
        packages: impl IntoIterator<Item = &'a Package>,
        target: &Path,
    ) -> anyhow::Result<()> {
        let downloads = self.root.join("downloads");
        fs::create_dir_all(&downloads)
            .with_context(|| format!("cannot create {}", downloads.display()))?;
        let names = packages.into_iter().map(Package::to_string);
        let mut download = self.apt("apt-get");
        output_of(download.arg("download").args(names).current_dir(&downloads))?;
        for entry in fs::read_dir(&downloads).context("cannot list the downloads")? {
            let package = entry.context("cannot list the downloads")?.path();
            output_of(Command::new("dpkg-deb").arg("-x").arg(&package).arg(target))?;
        }
        fs::remove_dir_all(&downloads).context("cannot remove the downloads")
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let root = self.root.display();
        let arch = self.arch.debian();
        for option in [
            format!("Dir::Etc={root}/etc"),
            format!("Dir::Etc::SourceList={root}/etc/sources.list"),
            format!("Dir::Etc::SourceParts={root}/etc/none.d"),
            format!("Dir::State={root}/state"),
            format!("Dir::State::status={root}/state/status"),
            format!("Dir::Cache={root}/cache"),
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures::={arch}"),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// The Debian archives that this machine's apt uses, security and third-party ones left out.
fn archive_uris() -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("apt-get");
    command.args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN) $(RELEASE) $(COMPONENT)",
    ]);
    let listing = output_of(command.args(["Created-By: Packages"]))
        .context("cannot read this machine's apt sources")?;
    let uris = main_archives(&listing);
    if uris.is_empty() {
        bail!("this machine's apt sources name no Debian archive to take the guest kernel from");
    }
    Ok(uris)
}

/// Picks the archives out of `URI ORIGIN RELEASE COMPONENT` lines.
///
/// The origin is only known after an `apt-get update`; before, apt leaves the format's word as is.
fn main_archives(listing: &str) -> Vec<String> {
    let mut uris = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [uri, origin, release, "main"] = words[..] else {
            continue;
        };
        let debian = origin == "Debian" || origin == "$(ORIGIN)";
        let whole = !release.ends_with("-security") && !release.contains('/');
        if debian && whole && !uris.iter().any(|known| known == uri) {
            uris.push(uri.to_owned());
        }
    }
    uris
}

/// The first version of `apt-cache madison`, which lists the newest first.
fn newest_in_madison(listing: &str) -> Option<String> {
    let line = listing.lines().find(|line| line.contains('|'))?;
    line.split('|')
        .nth(1)
        .map(|version| version.trim().to_owned())
}

/// What `apt-get --simulate` would install, by lines such as `Inst libc6 (2.41-12 Debian:13/stable [amd64])`.
fn simulated(listing: &str) -> impl Iterator<Item = Package> {
    let lines = listing
        .lines()
        .filter_map(|line| line.strip_prefix("Inst "));
    lines.filter_map(|line| {
        let (name, rest) = line.split_once(" (")?;
        let (version, _) = rest.split_once(' ')?;
        Some(Package {
            name: name.to_owned(),
            version: version.to_owned(),
        })
    })
}

/// The dependencies of a package record that are pinned to one version.
fn exact_dependencies(record: &str) -> impl Iterator<Item = Package> {
    record
        .lines()
        .filter_map(|line| {
            line.strip_prefix("Depends: ")
                .or(line.strip_prefix("Pre-Depends: "))
        })
        .flat_map(|list| list.split(','))
        .filter_map(|dependency| {
            let (name, version) = dependency.trim().split_once(" (= ")?;
            let version = version.strip_suffix(')')?;
            Some(Package {
                name: name.to_owned(),
                version: version.to_owned(),
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_distributions_own_archive_is_used() {
        let listing = "http://mirror.example/debian/ Debian bookworm main\n\
                       http://mirror.example/debian/ Debian bookworm-updates main\n\
                       http://mirror.example/security/ Debian bookworm-security main\n\
                       https://vendor.example/apt/ Vendor stable main\n\
                       http://fresh.example/debian/ $(ORIGIN) trixie main\n";
        let expected = [
            "http://mirror.example/debian/",
            "http://fresh.example/debian/",
        ];
        assert_eq!(main_archives(listing), expected);
    }

    #[test]
    fn the_parts_of_a_kernel_are_its_exact_dependencies() {
        let record = "Package: linux-image\nPre-Depends: linux-base (>= 4.17~)\n\
                      Depends: kmod, dracut | initramfs-tools (>= 0.120), \
                      linux-binary-7 (= 7.3-1), linux-modules-7 (= 7.3-1)\n";
        let parts: Vec<String> = exact_dependencies(record).map(|part| part.name).collect();
        assert_eq!(parts, ["linux-binary-7", "linux-modules-7"]);
    }

    #[test]
    fn a_simulation_lists_names_and_versions() {
        let listing = "NOTE: This is only a simulation!\n\
                       Inst libc6 (2.41-12+deb13u3 Debian:13.8/stable [amd64]) [libgcc-s1:amd64 ]\n\
                       Inst passt (0.0~git20250503.587980c-2 Debian:13.8/stable [amd64])\n\
                       Conf libc6 (2.41-12+deb13u3 Debian:13.8/stable [amd64])\n";
        let packages: Vec<String> = simulated(listing)
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        let expected = ["libc6=2.41-12+deb13u3", "passt=0.0~git20250503.587980c-2"];
        assert_eq!(packages, expected);
    }

    #[test]
    fn madison_lists_the_newest_version_first() {
        let listing = " linux-image-arm64 | 7.3.4-1~bpo13+1 | http://a stable-backports/main\n \
                       linux-image-arm64 | 6.12.107-1 | http://a stable/main\n";
        assert_eq!(
            newest_in_madison(listing).as_deref(),
            Some("7.3.4-1~bpo13+1")
        );
    }
}
