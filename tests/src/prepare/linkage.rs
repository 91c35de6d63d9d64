//! Running programs of unpacked packages: their loader and their libraries.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::arch::Arch;

/// Where an architecture's programs look for what they are linked with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linkage {
    /// The path of the loader that the programs name.
    pub(super) interpreter: &'static str,
    /// The distribution's name of the folder of libraries.
    triplet: &'static str,
}

impl Linkage {
    pub(super) const fn of(arch: Arch) -> Self {
        match arch {
            Arch::Arm64 => Self {
                interpreter: "/lib/ld-linux-aarch64.so.1",
                triplet: "aarch64-linux-gnu",
            },
            Arch::X86_64 => Self {
                interpreter: "/lib64/ld-linux-x86-64.so.2",
                triplet: "x86_64-linux-gnu",
            },
        }
    }

    /// The folder of libraries among packages unpacked in `root`.
    pub(super) fn libraries(self, root: &Path) -> PathBuf {
        root.join("usr/lib").join(self.triplet)
    }

    /// The loader among packages unpacked in `root`.
    pub(super) fn loader(self, root: &Path) -> anyhow::Result<PathBuf> {
        let name = Path::new(self.interpreter).file_name().unwrap_or_default();
        let loader = self.libraries(root).join(name);
        ensure!(loader.is_file(), "{} is not there", loader.display());
        Ok(loader)
    }
}
