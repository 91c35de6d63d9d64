//! Where this host's kernel shows its hardware, and where ccvm keeps its notes on it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::facts::PciAddress;

/// More than any attribute that is read here; the rest of a longer file is not looked at.
const ATTRIBUTE_BYTES_MAX: u64 = 64 * 1024;

/// The directories that facts are read from. Tests point them at a tree of their own.
#[derive(Debug, Clone)]
pub struct Roots {
    /// sysfs.
    pub sysfs: PathBuf,
    /// procfs.
    pub procfs: PathBuf,
    /// Device nodes.
    pub dev: PathBuf,
    /// Where ccvm remembers what a device was before it was handed to VFIO.
    pub state: PathBuf,
}

impl Roots {
    /// This host's: `/sys`, `/proc`, `/dev`, and `$CCVM_STATE_DIR` or `/run/ccvm`.
    #[must_use]
    pub fn this_host() -> Self {
        let state = std::env::var_os("CCVM_STATE_DIR").filter(|dir| !dir.is_empty());
        Self {
            sysfs: PathBuf::from("/sys"),
            procfs: PathBuf::from("/proc"),
            dev: PathBuf::from("/dev"),
            state: state.map_or_else(|| PathBuf::from("/run/ccvm"), PathBuf::from),
        }
    }

    pub(super) fn pci_devices(&self) -> PathBuf {
        self.sysfs.join("bus/pci/devices")
    }

    pub(super) fn pci_device(&self, pci: PciAddress) -> PathBuf {
        self.pci_devices().join(pci.to_string())
    }

    pub(super) fn pci_driver(&self, driver: &str) -> PathBuf {
        self.sysfs.join("bus/pci/drivers").join(driver)
    }

    pub(super) fn iommu_group(&self, group: u32) -> PathBuf {
        self.sysfs
            .join("kernel/iommu_groups")
            .join(group.to_string())
    }

    /// The functions of one IOMMU group, ascending.
    pub(super) fn group_members(&self, group: u32) -> io::Result<Vec<PciAddress>> {
        addresses_in(&self.iommu_group(group).join("devices"))
    }
}

/// The PCI functions that a directory has entries for, ascending. Other entries are passed over:
/// a group may hold platform devices too.
pub(super) fn addresses_in(directory: &Path) -> io::Result<Vec<PciAddress>> {
    let mut addresses = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        addresses.extend(
            name.to_str()
                .and_then(|name| name.parse::<PciAddress>().ok()),
        );
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The text of an attribute without the space around it; bytes that are not UTF-8 are replaced.
pub(super) fn attribute(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(ATTRIBUTE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The name of the directory that a link such as `driver` points at; `None` when there is no link.
pub(super) fn link_name(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}
