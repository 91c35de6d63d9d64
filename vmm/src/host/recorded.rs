//! A sysfs tree in a temporary directory, for tests.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::facts::PciAddress;
use super::roots::Roots;

/// A host of which sysfs shows what a test has put there.
pub(super) struct Tree {
    roots: Roots,
    _directory: tempfile::TempDir,
}

impl Tree {
    /// A host with nothing.
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let roots = Roots {
            sysfs: directory.path().join("sys"),
            procfs: directory.path().join("proc"),
            dev: directory.path().join("dev"),
            state: directory.path().join("run"),
        };
        Self {
            roots,
            _directory: directory,
        }
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Adds a network card as QEMU's `e1000` shows itself.
    pub(super) fn e1000(&self, pci: &str, group: Option<u32>, driver: Option<&str>) {
        self.function(pci, "0x020000", group, driver);
    }

    /// Adds a function of some class.
    pub(super) fn function(
        &self,
        pci: &str,
        class: &str,
        group: Option<u32>,
        driver: Option<&str>,
    ) {
        let address: PciAddress = pci.parse().unwrap();
        let directory = self.roots.pci_device(address);
        for (name, text) in [
            ("vendor", "0x8086\n"),
            ("device", "0x100e\n"),
            ("class", class),
            ("dma_mask_bits", "32\n"),
            ("consistent_dma_mask_bits", "32\n"),
            ("driver_override", "(null)\n"),
            (
                "resource",
                "0x0000000010000000 0x000000001001ffff 0x0000000000040200\n\
                 0x0000000000001000 0x000000000000103f 0x0000000000040101\n\
                 0x0000000000000000 0x0000000000000000 0x0000000000000000\n",
            ),
        ] {
            self.write(&directory.join(name), text);
        }
        if let Some(group) = group {
            self.isolate(pci, group);
        }
        if let Some(driver) = driver {
            self.bind(pci, driver);
        }
    }

    /// Puts `pci` into an IOMMU group.
    pub(super) fn isolate(&self, pci: &str, group: u32) {
        let directory = self.roots.pci_device(pci.parse().unwrap());
        let path = self.roots.iommu_group(group);
        self.write(
            &path.join("reserved_regions"),
            "0x0000000008000000 0x00000000080fffff msi\n",
        );
        std::fs::create_dir_all(path.join("devices")).unwrap();
        symlink(&directory, path.join("devices").join(pci)).unwrap();
        symlink(&path, directory.join("iommu_group")).unwrap();
    }

    /// Adds a driver without devices.
    pub(super) fn driver(&self, driver: &str) {
        std::fs::create_dir_all(self.roots.pci_driver(driver)).unwrap();
    }

    /// Makes `driver` the one that serves `pci`.
    pub(super) fn bind(&self, pci: &str, driver: &str) {
        self.driver(driver);
        let link = self.roots.pci_device(pci.parse().unwrap()).join("driver");
        let _ = std::fs::remove_file(&link);
        symlink(self.roots.pci_driver(driver), link).unwrap();
    }

    pub(super) fn write(&self, path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
