//! The report document: what a check found, for programs.
//!
//! Everything else that a check prints is drawn from it. What is unknown is absent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::facts::{Hex, PciAddress};
use crate::plan::WidthSource;
use crate::platform::Platform;

/// The version of the document that this ccvm writes.
pub const SCHEMA: u32 = 1;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of this document: 1.
    pub schema: u32,
    /// Whether the VM can run.
    pub verdict: Verdict,
    /// The kind of VM, once it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Width of the guest-physical space in bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipa_bits: Option<u8>,
    /// The address bit that names a page's shared alias, where the platform has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_bit: Option<u8>,
    /// Where guest memory lies, ascending.
    pub memory: Vec<MemoryRange>,
    /// The most memory in bytes that the VM could have with these devices on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// The device that limits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<PciAddress>,
    /// The assigned devices, in the order of the config.
    pub devices: Vec<DeviceReport>,
    /// The guest's IOMMU, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu: Option<IommuReport>,
    /// The emulated devices on the guest's PCI bus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emulated: Vec<EmulatedReport>,
    /// Everything that has an address, and reserved addresses between; ascending, disjoint, without
    /// shared aliases.
    pub layout: Vec<Region>,
    /// How choices were made that the config leaves open, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the operator should know, in the order of the config.
    pub diagnostics: Vec<Finding>,
}

/// Whether the VM can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It can.
    Accepted,
    /// It cannot, and the diagnostics say why.
    Rejected,
}

/// A range of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryRange {
    /// First address.
    pub start: Hex<u64>,
    /// Length in bytes.
    pub size: u64,
}

/// An assigned device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceReport {
    /// The function of the host.
    pub pci: PciAddress,
    /// Bus, device and function that the guest sees, where it has a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// Vendor id, where the host has the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Hex<u16>>,
    /// Device id, where the host has the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Hex<u16>>,
    /// How its DMA is addressed.
    pub dma: Dma,
    /// How many address bits it drives.
    pub dma_bits: u8,
    /// Where that is known from.
    pub dma_bits_source: WidthSource,
    /// What the device table cites for it, when that is the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma_bits_origin: Option<String>,
    /// The highest address that it will be told to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_dma_address: Option<Hex<u64>>,
    /// Whether it reaches every address that it will be told to use.
    pub reachable: bool,
}

/// The guest's IOMMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IommuReport {
    /// Bus, device and function that the guest sees.
    pub guest: String,
    /// The highest address that the guest can have translated.
    pub highest_address: Hex<u64>,
    /// What a device reaches that the guest has attached to no domain.
    pub unattached: Unattached,
}

/// What a device reaches that the guest's IOMMU has in no domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unattached {
    /// What it would without a virtual IOMMU.
    Bypass,
    /// Nothing.
    Blocked,
}

/// An emulated device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmulatedReport {
    /// Bus, device and function that the guest sees.
    pub guest: String,
    /// What it is.
    pub kind: EmulatedKind,
    /// What of the host is behind it: for a disk the file, for a network interface the tap, for what
    /// another process serves its socket, for sockets the context id; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// What an emulated device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmulatedKind {
    /// A disk.
    Disk,
    /// A network interface.
    Net,
    /// A disk that another process serves.
    VhostUserBlock,
    /// A network interface that another process serves.
    VhostUserNet,
    /// A file system that another process serves.
    VhostUserFs,
    /// Sockets between guest and host.
    Vsock,
    /// A source of random numbers.
    Rng,
    /// A console.
    Console,
}

impl EmulatedKind {
    /// What a person calls it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Disk | Self::VhostUserBlock => "disk",
            Self::Net | Self::VhostUserNet => "net",
            Self::VhostUserFs => "fs",
            Self::Vsock => "vsock",
            Self::Rng => "rng",
            Self::Console => "console",
        }
    }
}

/// How a device's DMA is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dma {
    /// By guest-physical address, with the shared bit where the platform has one.
    Direct,
    /// By addresses that the guest chooses through a virtual IOMMU.
    Translated,
}

/// A part of guest-physical space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Region {
    /// First address.
    pub start: Hex<u64>,
    /// Length in bytes.
    pub size: u64,
    /// What answers there.
    pub kind: RegionKind,
}

/// What answers at a part of guest-physical space.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RegionKind {
    /// Memory.
    Memory,
    /// GICv3 distributor.
    GicDistributor,
    /// GICv3 interrupt translation service.
    GicIts,
    /// GICv3 redistributors.
    GicRedistributors,
    /// 16550 serial port.
    Serial,
    /// PL031 real-time clock.
    Rtc,
    /// PL061 GPIO controller, to which the power button is wired.
    Gpio,
    /// PCI configuration space.
    PciConfig,
    /// PCI I/O ports.
    PciIo,
    /// PCI memory below 4 GiB.
    PciMem32,
    /// PCI memory for 64-bit BARs.
    PciMem64,
    /// Addresses that the IOMMU does not translate for an assigned device, so that no memory can lie
    /// there.
    Reserved,
}

impl RegionKind {
    /// What a person calls it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::GicDistributor => "GIC distributor",
            Self::GicIts => "GIC ITS",
            Self::GicRedistributors => "GIC redistributors",
            Self::Serial => "serial port",
            Self::Rtc => "real-time clock",
            Self::Gpio => "power button",
            Self::PciConfig => "PCI configuration",
            Self::PciIo => "PCI I/O ports",
            Self::PciMem32 => "PCI memory, 32-bit",
            Self::PciMem64 => "PCI memory, 64-bit",
            Self::Reserved => "reserved, no DMA",
        }
    }
}

/// Something that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Its stable code, as the reference lists it.
    #[schemars(regex(pattern = "^CCVM[0-9]{4}$"))]
    pub code: String,
    /// How bad it is.
    pub severity: FindingSeverity,
    /// What is wrong.
    pub message: String,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The device that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PciAddress>,
    /// The file that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line of the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in that line, in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FindingSeverity {
    /// The VM cannot run.
    Error,
    /// Worth knowing; the VM can run.
    Warning,
}
