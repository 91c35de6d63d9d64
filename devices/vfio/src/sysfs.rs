//! What sysfs says of a function before VFIO is asked: driver, IOMMU group, other members.

use std::fs;
use std::path::{Path, PathBuf};

/// Drivers that leave a group viable: they do no DMA on behalf of the host kernel.
/// `pcieport` and `pci-stub` declare `driver_managed_dma` (drivers/pci).
const HARMLESS_DRIVERS: [&str; 2] = ["pcieport", "pci-stub"];

/// A function of the host in sysfs: `/sys/bus/pci/devices/0000:00:04.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysfs {
    path: PathBuf,
}

/// Another function of the same IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its address, such as `0000:00:04.1`.
    pub name: String,
    /// The driver that it is bound to.
    pub driver: String,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (driver {})", self.name, self.driver)
    }
}

impl Sysfs {
    /// The function at this path; whether there is one shows [`Sysfs::exists`].
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The function's address: the last part of the path.
    #[must_use]
    pub fn name(&self) -> String {
        file_name(&self.path).unwrap_or_default()
    }

    /// Whether the host has this function.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.join("vendor").exists()
    }

    /// The driver that the function is bound to.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        link_name(&self.path.join("driver"))
    }

    /// The IOMMU group's number, as the name of `/dev/vfio/NUMBER`.
    #[must_use]
    pub fn group(&self) -> Option<String> {
        link_name(&self.path.join("iommu_group"))
    }

    /// The function's own node, which it has while a VFIO driver has it on a kernel with
    /// `CONFIG_VFIO_DEVICE_CDEV`.
    #[must_use]
    pub fn node(&self) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.path.join("vfio-dev")).ok()?;
        let entry = entries.next()?.ok()?;
        // Without a device number there is no node, only the kernel's own name for the device.
        let has_node = entry.path().join("dev").exists();
        has_node.then(|| Path::new("/dev/vfio/devices").join(entry.file_name()))
    }

    /// The other members of the group that a host driver holds, sorted: each of them makes the
    /// group unfit for assignment, because it can be reached from the assigned one.
    #[must_use]
    pub fn foreign_members(&self) -> Vec<Member> {
        let Ok(entries) = fs::read_dir(self.path.join("iommu_group/devices")) else {
            return Vec::new();
        };
        let own = self.name();
        let mut members: Vec<Member> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = file_name(&path)?;
                let driver = link_name(&path.join("driver"))?;
                let foreign = name != own && !is_vfio(&driver) && !is_harmless(&driver);
                foreign.then_some(Member { name, driver })
            })
            .collect();
        members.sort();
        members
    }
}

/// Whether `driver` is a VFIO driver: `vfio-pci` or a vendor's variant of it.
pub(crate) fn is_vfio(driver: &str) -> bool {
    driver.contains("vfio")
}

fn is_harmless(driver: &str) -> bool {
    HARMLESS_DRIVERS.contains(&driver)
}

fn link_name(link: &Path) -> Option<String> {
    file_name(&fs::read_link(link).ok()?)
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs tree with the functions `(name, driver)`, all in group 7.
    fn tree(functions: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().join("groups/7/devices");
        fs::create_dir_all(&devices).unwrap();
        for (name, driver) in functions {
            let function = root.path().join(name);
            fs::create_dir(&function).unwrap();
            fs::write(function.join("vendor"), "0x1234\n").unwrap();
            symlink("../groups/7", function.join("iommu_group")).unwrap();
            symlink(&function, devices.join(name)).unwrap();
            if let Some(driver) = driver {
                symlink(format!("../drivers/{driver}"), function.join("driver")).unwrap();
            }
        }
        root
    }

    #[test]
    fn driver_and_group_are_the_names_that_the_links_end_in() {
        let root = tree(&[("0000:00:04.0", Some("e1000"))]);
        let function = Sysfs::new(root.path().join("0000:00:04.0"));
        assert!(function.exists());
        assert_eq!(function.name(), "0000:00:04.0");
        assert_eq!(function.driver().as_deref(), Some("e1000"));
        assert_eq!(function.group().as_deref(), Some("7"));
        assert!(!Sysfs::new(root.path().join("0000:00:05.0")).exists());
    }

    #[test]
    fn only_members_that_a_host_driver_holds_are_foreign() {
        let root = tree(&[
            ("0000:00:04.0", Some("vfio-pci")),
            ("0000:00:04.1", Some("snd_hda_intel")),
            ("0000:00:04.2", None),
            ("0000:00:04.3", Some("mlx5_vfio_pci")),
            ("0000:00:01.0", Some("pcieport")),
        ]);
        let function = Sysfs::new(root.path().join("0000:00:04.0"));
        let members = function.foreign_members();
        assert_eq!(members.len(), 1);
        assert_eq!(
            members[0].to_string(),
            "0000:00:04.1 (driver snd_hda_intel)"
        );
    }
}
