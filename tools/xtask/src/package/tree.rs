//! The files of a package, staged in a folder with the modes that they are to have.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::output;
use crate::progress::run;

const FILE: u32 = 0o644;
const PROGRAM: u32 = 0o755;
const DIRECTORY: u32 = 0o755;

/// Files beside code that a reader of the documentation needs.
const TEXTS: [&str; 3] = ["md", "svg", "txt"];

/// A package's tree. What an earlier run has left is gone.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(super) fn new(root: PathBuf) -> anyhow::Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        fs::set_permissions(&root, Permissions::from_mode(DIRECTORY))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A folder, and those that it lies in.
    pub(super) fn folder(&self, path: &str) -> anyhow::Result<PathBuf> {
        let mut folder = self.root.clone();
        for part in Path::new(path).components() {
            folder.push(part);
            if !folder.exists() {
                fs::create_dir(&folder)?;
                fs::set_permissions(&folder, Permissions::from_mode(DIRECTORY))?;
            }
        }
        Ok(folder)
    }

    pub(super) fn write(&mut self, path: &str, text: &str) -> anyhow::Result<()> {
        let file = self.prepare(path)?;
        fs::write(&file, text)?;
        mode(&file, FILE)
    }

    pub(super) fn program(&mut self, path: &str, from: &Path) -> anyhow::Result<()> {
        let file = self.prepare(path)?;
        fs::copy(from, &file).with_context(|| format!("cannot copy {}", from.display()))?;
        mode(&file, PROGRAM)
    }

    /// The texts below `from`.
    pub(super) fn copy_texts(&mut self, from: &Path, to: &str) -> anyhow::Result<()> {
        let entries = fs::read_dir(from).with_context(|| format!("no {}", from.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let to = format!("{to}/{name}");
            let ending = path.extension().and_then(|ending| ending.to_str());
            if path.is_dir() {
                self.copy_texts(&path, &to)?;
            } else if ending.is_some_and(|ending| TEXTS.contains(&ending)) {
                let file = self.prepare(&to)?;
                fs::copy(&path, &file)?;
                mode(&file, FILE)?;
            }
        }
        Ok(())
    }

    /// Compresses every file of a folder.
    pub(super) fn compress(&mut self, folder: &str) -> anyhow::Result<()> {
        for file in files(&self.root.join(folder))? {
            gzip(&file)?;
        }
        Ok(())
    }

    pub(super) fn compress_file(&mut self, path: &str) -> anyhow::Result<()> {
        gzip(&self.root.join(path))
    }

    /// What it occupies when it is installed, in KiB.
    pub(super) fn kib(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for file in files(&self.root)? {
            bytes += fs::metadata(file)?.len().next_multiple_of(1024);
        }
        Ok(bytes / 1024)
    }

    /// The checksums of its files, as dpkg keeps them.
    pub(super) fn md5sums(&self) -> anyhow::Result<String> {
        let mut names = Vec::new();
        for file in files(&self.root)? {
            let name = file.strip_prefix(&self.root)?.to_owned();
            if !name.starts_with("DEBIAN") {
                names.push(name);
            }
        }
        output(Command::new("md5sum").current_dir(&self.root).args(names))
    }

    fn prepare(&self, path: &str) -> anyhow::Result<PathBuf> {
        let file = self.root.join(path);
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        Ok(file)
    }
}

/// Without name and time, so that equal files stay equal.
fn gzip(file: &Path) -> anyhow::Result<()> {
    run(Command::new("gzip").args(["-9", "--no-name"]).arg(file))?;
    let mut name = file.as_os_str().to_owned();
    name.push(".gz");
    mode(Path::new(&name), FILE)
}

fn mode(file: &Path, mode: u32) -> anyhow::Result<()> {
    Ok(fs::set_permissions(file, Permissions::from_mode(mode))?)
}

/// All files below a folder, in order.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}
