//! The emulator of a host: this machine's, or the archive's where there is none or an old one.
//!
//! ```text
//! on PATH and new enough? ─► in the cache? ─► fetch it with its libraries, run it by its own loader
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::linkage::Linkage;
use super::packages::is_present;
use super::{Archive, Refresh, output_of, series};
use crate::arch::Arch;
use crate::progress;

/// Until 8.0, what one thread translates may be what another has just overwritten, and stay. Kernels
/// patch themselves (jump labels, as KVM comes and goes) and then die of a half-made change: "Oops: int3".
const OLDEST: (u32, u32) = (8, 1);

/// Where the package has what the emulator loads.
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// A program and what stands before the arguments.
#[derive(Debug, Clone)]
pub struct Emulator {
    program: PathBuf,
    first: Vec<OsString>,
}

impl Emulator {
    /// The command that starts it, without arguments for a machine.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first);
        command
    }
}

/// What emulates a host of `arch`.
///
/// # Errors
/// When this machine's emulator is too old or not there, and the archive cannot be had.
pub(super) fn emulator(cache: &Path, arch: Arch, refresh: Refresh) -> anyhow::Result<Emulator> {
    let name = arch.emulator();
    if is_present(name) {
        let own = Emulator {
            program: name.into(),
            first: Vec::new(),
        };
        if is_new_enough(&version(&own)?) {
            return Ok(own);
        }
    }
    let (major, minor) = OLDEST;
    fetched(cache, arch, refresh)
        .with_context(|| format!("{name} {major}.{minor} or newer is neither here nor to be had"))
}

fn fetched(cache: &Path, arch: Arch, refresh: Refresh) -> anyhow::Result<Emulator> {
    let here = Arch::of_this_machine().context("the archive has none for this machine")?;
    let root = cache.join("emulator").join(arch.debian());
    if refresh == Refresh::WhenMissing
        && let Ok(emulator) = locate(&root, here, arch)
    {
        return Ok(emulator);
    }
    let what = format!("fetch an emulator of {arch}, 40 MB");
    progress::step(&what, || {
        let archive = Archive::open(cache, here)?;
        archive.install(&[arch.emulator_package().to_owned()], &root)
    })?;
    locate(&root, here, arch)
}

/// Finds the emulator in a folder of unpacked packages, and makes sure that it starts.
fn locate(root: &Path, here: Arch, arch: Arch) -> anyhow::Result<Emulator> {
    let linkage = Linkage::of(here);
    let mut first: Vec<OsString> = vec![
        "--library-path".into(),
        linkage.libraries(root).into(),
        root.join("usr/bin").join(arch.emulator()).into(),
    ];
    for folder in DATA {
        first.extend(["-L".into(), root.join(folder).into()]);
    }
    let emulator = Emulator {
        program: linkage.loader(root)?,
        first,
    };
    version(&emulator)?;
    Ok(emulator)
}

fn version(emulator: &Emulator) -> anyhow::Result<String> {
    output_of(emulator.command().arg("--version"))
}

/// Whether `QEMU emulator version MAJOR.MINOR…` is at least [`OLDEST`].
fn is_new_enough(said: &str) -> bool {
    let version = said.split_once("version ");
    let series = version.and_then(|(_, version)| series(version));
    series.is_some_and(|series| series >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulators_that_keep_overwritten_code_are_too_old() {
        for (said, new_enough) in [
            (
                "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0)",
                true,
            ),
            ("QEMU emulator version 8.1.0", true),
            ("QEMU emulator version 8.0.4", false),
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_new_enough(said), new_enough, "{said}");
        }
    }
}
