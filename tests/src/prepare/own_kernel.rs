//! A kernel that this repository configures, built from the distribution's source package.
//!
//! ```text
//! KEY = architecture + version of the source + hash of tests/kernel/ARCHITECTURE.config
//!
//! $CCVM_KERNELS/KEY there? ─► cache/own-kernel/KEY there? ─► download, configure, build, keep
//! ```

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, bail, ensure};

use super::archive::{Archive, Package};
use super::packages::{Need, install_packages, is_present};
use super::{Install, cache, output_of, repository};
use crate::arch::Arch;
use crate::digest::sha256;
use crate::progress;

/// What a build takes besides what the testbed needs in any case.
const BUILD_NEEDS: &[Need] = &[
    Need::new("make", "make"),
    Need::new("gcc", "gcc"),
    Need::new("/usr/include/stdio.h", "libc6-dev"),
    Need::new("flex", "flex"),
    Need::new("bison", "bison"),
    Need::new("bc", "bc"),
    Need::new("perl", "perl-base"),
];

/// What a build for x86_64 takes on top: its objects are checked by a program that reads ELF.
const BUILD_NEEDS_OF_X86_64: &[Need] = &[Need::new("/usr/include/gelf.h", "libelf-dev")];

/// What the kernel is made to have.
fn fragment(arch: Arch) -> String {
    format!("tests/kernel/{}.config", arch.machine())
}

/// What the build makes, and where.
const fn image(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::Arm64 => ("Image", "arch/arm64/boot/Image"),
        Arch::X86_64 => ("bzImage", "arch/x86/boot/bzImage"),
    }
}

/// The kernel of our own: built before, found in the folder that `CCVM_KERNELS` names, or built now
/// from the source of `version`, or of the newest kernel where the archive has that one no more.
///
/// # Errors
/// When it cannot be had: names what is missing.
pub fn own_kernel(install: Install, arch: Arch, version: &str) -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    let fragment =
        fs::read(repository().join(fragment(arch))).context("cannot read the fragment")?;
    let hash = sha256(&fragment)?;
    if let Some(image) = ready(&cache, &key(arch, version, &hash)) {
        return Ok(image);
    }
    let archive = Archive::open(&cache, arch)?;
    let source = source(&archive, version)?;
    let key = key(arch, &source.version, &hash);
    if let Some(image) = ready(&cache, &key) {
        return Ok(image);
    }
    let needs: &[&[Need]] = match arch {
        Arch::Arm64 => &[BUILD_NEEDS],
        Arch::X86_64 => &[BUILD_NEEDS, BUILD_NEEDS_OF_X86_64],
    };
    let missing: Vec<&str> = needs
        .concat()
        .iter()
        .filter(|need| !is_present(need.program))
        .map(|need| need.package)
        .collect();
    if !missing.is_empty() {
        install_packages(install, &missing, &[])?;
    }
    let folder = folder(&cache);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let build = Build::start(&folder, arch)?;
    build.unpack(&archive, &source)?;
    // Others may fetch meanwhile.
    drop(archive);
    build.configure(&fragment)?;
    let image = build.compile()?;
    let kept = folder.join(key);
    // Only a whole kernel gets the final name.
    fs::rename(&image, &kept).context("cannot move the kernel into the cache")?;
    Ok(kept)
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("own-kernel")
}

/// The name of the file of a kernel.
fn key(arch: Arch, version: &str, hash: &str) -> String {
    let (name, _) = image(arch);
    let hash = &hash[..hash.len().min(12)];
    format!("{name}-{version}-{hash}-{}", arch.machine())
}

/// A kernel that is there already.
fn ready(cache: &Path, key: &str) -> Option<PathBuf> {
    let given = env::var_os("CCVM_KERNELS").map(PathBuf::from);
    let folders = given.into_iter().chain([folder(cache)]);
    folders
        .map(|folder| folder.join(key))
        .find(|image| image.is_file())
}

/// The package with the source of `version`, such as `linux-source-7.3`, or of the newest kernel.
fn source(archive: &Archive, version: &str) -> anyhow::Result<Package> {
    let series = |version: &str| {
        let mut numbers = version.split('.');
        let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
            bail!("{version} is not the version of a kernel");
        };
        let minor: String = minor.chars().take_while(char::is_ascii_digit).collect();
        Ok(format!("linux-source-{major}.{minor}"))
    };
    let wanted = Package {
        name: series(version)?,
        version: version.to_owned(),
    };
    if archive.has(&wanted)? {
        return Ok(wanted);
    }
    let newest = archive.newest("linux-source")?.version;
    Ok(Package {
        name: series(&newest)?,
        version: newest,
    })
}

/// A build under way, in a folder that goes when it is done.
struct Build {
    arch: Arch,
    folder: PathBuf,
    // The lock ends with the file.
    _lock: File,
}

impl Build {
    /// Waits for another build in the same cache to end.
    fn start(cache: &Path, arch: Arch) -> anyhow::Result<Self> {
        let lock = File::create(cache.join("lock")).context("cannot lock the cache")?;
        lock.lock().context("cannot lock the cache")?;
        let folder = cache.join("build");
        discard(&folder);
        let output = folder.join("out");
        fs::create_dir_all(&output)
            .with_context(|| format!("cannot create {}", output.display()))?;
        Ok(Self {
            arch,
            folder,
            _lock: lock,
        })
    }

    fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    fn unpack(&self, archive: &Archive, source: &Package) -> anyhow::Result<()> {
        let what = format!("fetch the source of linux {}, 170 MB", source.version);
        progress::step(&what, || {
            let package = self.folder.join("package");
            archive.unpack([source], &package)?;
            let tree = self.tree();
            fs::create_dir_all(&tree).context("cannot create the source tree")?;
            let tar = package
                .join("usr/src")
                .join(format!("{}.tar.xz", source.name));
            let mut unpack = Command::new("tar");
            unpack.arg("-xf").arg(tar).arg("-C").arg(&tree);
            output_of(unpack.arg("--strip-components=1"))?;
            fs::remove_dir_all(&package).context("cannot remove the package")
        })
    }

    /// Sets what the fragment sets and nothing else that can be left out.
    fn configure(&self, fragment: &[u8]) -> anyhow::Result<()> {
        let wanted = self.folder.join("fragment");
        fs::write(&wanted, fragment).context("cannot write the fragment")?;
        let mut setting = std::ffi::OsString::from("KCONFIG_ALLCONFIG=");
        setting.push(&wanted);
        output_of(self.make().arg(setting).arg("allnoconfig"))?;
        let config = fs::read_to_string(self.folder.join("out/.config"));
        let config = config.context("cannot read the kernel's configuration")?;
        let fragment = String::from_utf8_lossy(fragment);
        let lost = lost(&fragment, &config);
        ensure!(
            lost.is_empty(),
            "this kernel does not take these settings of the fragment for {}: {}",
            self.arch,
            lost.join(", ")
        );
        Ok(())
    }

    fn compile(&self) -> anyhow::Result<PathBuf> {
        let (goal, file) = image(self.arch);
        let what = format!(
            "build a kernel for {} with IOMMUFD, once; 10 minutes on two processors",
            self.arch
        );
        progress::step(&what, || {
            let jobs = thread::available_parallelism().map_or(1, usize::from);
            output_of(self.make().arg(format!("-j{jobs}")).arg(goal)).map(drop)
        })?;
        Ok(self.folder.join("out").join(file))
    }

    fn make(&self) -> Command {
        let mut make = Command::new("make");
        make.arg("--silent")
            .arg("-C")
            .arg(self.tree())
            .arg(format!("O={}", self.folder.join("out").display()))
            .arg(format!("ARCH={}", self.arch.linux()))
            .arg(format!("CROSS_COMPILE={}", self.arch.cross_prefix()))
            // A jobserver of cargo's is not for others.
            .env_remove("MAKEFLAGS");
        make
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        discard(&self.folder);
    }
}

/// Removes a build, and what earlier removals have left, without waiting: where the file system gives
/// the blocks of each of 100,000 files back to the disk at once, that takes five minutes.
fn discard(build: &Path) {
    static DISCARDED: AtomicU32 = AtomicU32::new(0);
    let number = DISCARDED.fetch_add(1, Ordering::Relaxed);
    let name = format!("{DISCARD}{}-{number}", std::process::id());
    match fs::rename(build, build.with_file_name(name)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            progress::note(&format!("cannot remove {}: {error}", build.display()));
        }
        _ => {}
    }
    let entries = build.parent().and_then(|cache| fs::read_dir(cache).ok());
    let discarded = entries
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(DISCARD));
    // A removal that does not start or does not end is made up for by the next build's.
    let _ = Command::new("rm")
        .arg("-rf")
        .args(discarded.map(|entry| entry.path()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

/// What the names of builds begin with that are being removed.
const DISCARD: &str = "discarded-";

/// The settings of a fragment that a configuration has not.
fn lost<'f>(fragment: &'f str, config: &str) -> Vec<&'f str> {
    fragment
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter(|setting| !config.lines().any(|line| line == *setting))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_names_architecture_version_and_fragment() {
        for (arch, expected) in [
            (Arch::Arm64, "Image-7.3.4-1-0123456789ab-aarch64"),
            (Arch::X86_64, "bzImage-7.3.4-1-0123456789ab-x86_64"),
        ] {
            assert_eq!(key(arch, "7.3.4-1", "0123456789abcdef"), expected);
        }
    }

    #[test]
    fn a_discarded_build_is_gone_at_once_and_removed_in_the_end() {
        let cache = tempfile::tempdir().unwrap();
        let build = cache.path().join("build");
        for _ in 0..2 {
            fs::create_dir_all(build.join("out")).unwrap();
            discard(&build);
            assert!(!build.exists());
        }
        let entries = || fs::read_dir(cache.path()).unwrap().count();
        while entries() > 0 {
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    #[test]
    fn settings_that_a_kernel_drops_are_named() {
        let fragment = "# why\nCONFIG_A=y\nCONFIG_B=64\n# CONFIG_C is not set\n";
        assert_eq!(lost(fragment, "CONFIG_A=y\nCONFIG_B=32\n"), ["CONFIG_B=64"]);
        assert!(lost(fragment, "CONFIG_B=64\nCONFIG_A=y\n").is_empty());
    }
}
