//! Kernel modules in the order in which they must be loaded.
//!
//! A module names its dependencies itself, in the `depends=` entry of its `.modinfo` section, so
//! the index that depmod would build is not needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A module, unpacked.
#[derive(Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The ELF file.
    pub content: Vec<u8>,
}

/// Reads modules and all they depend on, dependencies first; built-in ones are left out.
///
/// # Errors
/// When a module is neither in `folder` nor built into the kernel.
pub fn load_order(folder: &Path, names: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    collect(&folder.join("kernel"), &mut files)?;
    let builtin = fs::read_to_string(folder.join("modules.builtin"))
        .context("cannot read modules.builtin")?
        .lines()
        .filter_map(|line| module_name(Path::new(line)))
        .collect();
    let mut loader = Loader {
        files,
        builtin,
        seen: BTreeSet::new(),
        order: Vec::new(),
    };
    for name in names {
        loader.visit(name)?;
    }
    Ok(loader.order)
}

struct Loader {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    seen: BTreeSet<String>,
    order: Vec<Module>,
}

impl Loader {
    fn visit(&mut self, name: &str) -> anyhow::Result<()> {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) || !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let path = self
            .files
            .get(&name)
            .with_context(|| format!("this kernel has no module {name}"))?;
        let content = read(path)?;
        for dependency in dependencies(&content) {
            self.visit(&dependency)?;
        }
        self.order.push(Module { name, content });
        Ok(())
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `vfio-pci.ko.xz` is the module `vfio_pci`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, _) = file.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

/// The names in the `depends=` entry of a module.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let list = module[start + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(list)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_module(folder: &Path, name: &str, depends: &str) {
        let content = format!("ELF\0license=GPL\0depends={depends}\0name=x\0");
        fs::write(folder.join(name), content).unwrap();
    }

    #[test]
    fn dependencies_come_first_and_built_in_modules_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        fs::create_dir_all(kernel.join("sub")).unwrap();
        fs::write(folder.path().join("modules.builtin"), "kernel/lib/crc.ko\n").unwrap();
        write_module(&kernel, "ahci.ko", "libahci,libata");
        write_module(&kernel, "libahci.ko", "libata");
        write_module(&kernel.join("sub"), "libata.ko", "scsi_mod,crc");
        write_module(&kernel, "scsi-mod.ko", "");
        let order = load_order(folder.path(), &["ahci", "libata"]).unwrap();
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["scsi_mod", "libata", "libahci", "ahci"]);
    }

    #[test]
    fn a_module_that_does_not_exist_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("kernel")).unwrap();
        fs::write(folder.path().join("modules.builtin"), "").unwrap();
        let error = load_order(folder.path(), &["vfio-pci"]).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no module vfio_pci");
    }
}
