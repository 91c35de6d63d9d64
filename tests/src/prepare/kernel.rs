//! The distribution's kernel and busybox for one architecture: what the host of the testbed and its guests run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::{Archive, Refresh, series};
use crate::arch::Arch;
use crate::progress;

/// RSI support for guests came with Linux 6.13.
const OLDEST_KERNEL: (u32, u32) = (6, 13);

/// A kernel, its modules and a userland.
#[derive(Debug, Clone)]
pub struct GuestFiles {
    /// The kernel's package version, such as `7.3.4-1~bpo13+1`.
    pub version: String,
    /// The kernel: a raw `Image` for arm64, a `bzImage` for x86_64.
    pub kernel: PathBuf,
    /// The folder that holds `kernel/` with the modules, and `modules.builtin`.
    pub modules: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
}

/// The cached kernel, or the newest one that the archive has.
///
/// # Errors
/// When there is none cached and the archive cannot be read, or its kernel is too old.
pub(super) fn guest_files(
    cache: &Path,
    arch: Arch,
    refresh: Refresh,
) -> anyhow::Result<GuestFiles> {
    let kernels = cache.join("kernel").join(arch.debian());
    let current = kernels.join("current");
    if refresh == Refresh::WhenMissing
        && let Ok(version) = fs::read_to_string(&current)
        && let Ok(files) = locate(&kernels, version.trim())
    {
        return Ok(files);
    }
    let what = format!("find the newest Debian kernel for {arch}");
    let version = progress::step(&what, || fetch(cache, arch, &kernels))?;
    fs::write(&current, format!("{version}\n")).context("cannot record the kernel's version")?;
    locate(&kernels, &version)
}

fn fetch(cache: &Path, arch: Arch, kernels: &Path) -> anyhow::Result<String> {
    let archive = Archive::open(cache, arch)?;
    let kernel = archive.newest(&format!("linux-image-{}", arch.debian()))?;
    ensure!(
        is_new_enough(&kernel.version),
        "the newest Debian kernel is {}, but a Realm's guest needs {}.{} or newer",
        kernel.version,
        OLDEST_KERNEL.0,
        OLDEST_KERNEL.1
    );
    let target = kernels.join(&kernel.version);
    if target.exists() {
        return Ok(kernel.version);
    }
    let busybox = archive.newest("busybox-static")?;
    let mut packages = archive.with_parts(&kernel)?;
    packages.insert(busybox);
    progress::note(&format!(
        "linux {} and busybox, about 100 MB",
        kernel.version
    ));
    archive.replace(&packages, &target)?;
    Ok(kernel.version)
}

fn locate(kernels: &Path, version: &str) -> anyhow::Result<GuestFiles> {
    let root = kernels.join(version);
    let modules = only_entry(&root.join("usr/lib/modules"))
        .or_else(|_| only_entry(&root.join("lib/modules")))?;
    let busybox = first_file(&[root.join("usr/bin/busybox"), root.join("bin/busybox")])?;
    let release = modules
        .file_name()
        .context("the modules folder has no name")?;
    let in_boot = format!("boot/vmlinuz-{}", release.to_string_lossy());
    let kernel = first_file(&[modules.join("vmlinuz"), root.join(in_boot)])?;
    Ok(GuestFiles {
        version: version.to_owned(),
        kernel,
        modules,
        busybox,
    })
}

fn only_entry(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        _ => bail!("{} should hold exactly one kernel", folder.display()),
    }
}

fn first_file(candidates: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let found = candidates.iter().find(|path| path.is_file());
    found
        .cloned()
        .with_context(|| format!("none of these is there: {candidates:?}"))
}

fn is_new_enough(version: &str) -> bool {
    series(version).is_some_and(|series| series >= OLDEST_KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_13_are_too_old_for_a_realm() {
        for (version, new_enough) in [
            ("7.3.4-1~bpo13+1", true),
            ("6.13-1", true),
            ("6.12.107-1", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_new_enough(version), new_enough, "{version}");
        }
    }
}
