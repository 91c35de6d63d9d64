//! The devices of a host that tests assign to guests.

use std::path::{Path, PathBuf};

/// What a test uses a device for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// QEMU's teaching device with its default mask of 28 bits.
    NarrowEdu,
    /// The same with a mask of 36 bits.
    WideEdu,
    /// Another one like that.
    SecondEdu,
    /// A network card that has a line interrupt and nothing else.
    Nic,
    /// A network card with MSI-X.
    MsixNic,
    /// A disk behind AHCI.
    Ahci,
    /// A disk behind NVMe, with its MSI-X table among its registers.
    Nvme,
    /// A disk behind NVMe, with its MSI-X table in a BAR of its own.
    ApartNvme,
    /// A device whose IOMMU group has a member that the host's driver holds.
    Tied,
}

impl Role {
    /// The role in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NarrowEdu => "an edu device with a DMA mask of 28 bits",
            Self::WideEdu => "an edu device with a DMA mask of 36 bits",
            Self::SecondEdu => "a second edu device with a DMA mask of 36 bits",
            Self::Nic => "a network card",
            Self::MsixNic => "a network card with MSI-X",
            Self::Ahci => "an AHCI disk",
            Self::Nvme => "an NVMe disk",
            Self::ApartNvme => "an NVMe disk with its MSI-X table in a BAR of its own",
            Self::Tied => "a device that shares its IOMMU group",
        }
    }
}

/// A device that tests may use.
#[derive(Debug, Clone)]
pub struct Device {
    /// What for.
    pub role: Role,
    /// Its PCI address on the host.
    pub address: String,
}

/// The other ends of the testbed's devices: files on the machine that runs the emulator.
#[derive(Debug, Clone)]
pub struct Backing {
    folder: PathBuf,
}

impl Backing {
    /// In a folder that holds nothing else.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The image behind a disk.
    #[must_use]
    pub fn disk(&self, role: Role) -> PathBuf {
        self.folder.join(match role {
            Role::Nvme => "nvme.disk",
            Role::ApartNvme => "apart.disk",
            _ => "ahci.disk",
        })
    }

    /// What the guest's peer received last.
    #[must_use]
    pub fn received(&self) -> PathBuf {
        self.folder.join("received")
    }

    /// What the guest's peer sends.
    #[must_use]
    pub fn offered(&self) -> PathBuf {
        self.folder.join("offered")
    }

    /// The emulator's arguments for all devices, each but one alone in its IOMMU group.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let drive = |role, id| {
            format!(
                "file={},format=raw,if=none,id={id}",
                self.disk(role).display()
            )
        };
        // The emulator is the peer: it starts a program for each of the guest's connections.
        let net = |id| {
            format!(
                "user,id={id},restrict=on,guestfwd=tcp:10.0.2.100:4001-cmd:dd bs=64k status=none of={},\
             guestfwd=tcp:10.0.2.100:4002-cmd:cat {}",
                self.received().display(),
                self.offered().display()
            )
        };
        [
            ("-device", "edu,addr=0x4".to_owned()),
            ("-device", "edu,addr=0x5,dma_mask=0xfffffffff".to_owned()),
            ("-netdev", net("net")),
            ("-device", "e1000,netdev=net,addr=0x6,romfile=".to_owned()),
            ("-drive", drive(Role::Ahci, "ahci")),
            ("-device", "ich9-ahci,id=sata,addr=0x7".to_owned()),
            ("-device", "ide-hd,drive=ahci,bus=sata.0".to_owned()),
            ("-drive", drive(Role::Nvme, "nvme")),
            ("-device", "nvme,drive=nvme,serial=ccvm,addr=0x8".to_owned()),
            // Functions of one slot without ACS share a group.
            ("-device", "edu,addr=0x9.0,multifunction=on".to_owned()),
            ("-device", "e1000,addr=0x9.1,romfile=".to_owned()),
            ("-device", "edu,addr=0xa,dma_mask=0xfffffffff".to_owned()),
            ("-netdev", net("msix")),
            ("-device", "e1000e,netdev=msix,addr=0xb,romfile=".to_owned()),
            ("-drive", drive(Role::ApartNvme, "apart")),
            (
                "-device",
                "nvme,drive=apart,serial=apart,addr=0xc,msix-exclusive-bar=on".to_owned(),
            ),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
    }
}

/// The devices that [`Backing::arguments`] adds.
#[must_use]
pub fn testbed_devices() -> Vec<Device> {
    [
        (Role::NarrowEdu, "0000:00:04.0"),
        (Role::WideEdu, "0000:00:05.0"),
        (Role::Nic, "0000:00:06.0"),
        (Role::Ahci, "0000:00:07.0"),
        (Role::Nvme, "0000:00:08.0"),
        (Role::Tied, "0000:00:09.0"),
        (Role::SecondEdu, "0000:00:0a.0"),
        (Role::MsixNic, "0000:00:0b.0"),
        (Role::ApartNvme, "0000:00:0c.0"),
    ]
    .map(|(role, address)| Device {
        role,
        address: address.to_owned(),
    })
    .to_vec()
}
