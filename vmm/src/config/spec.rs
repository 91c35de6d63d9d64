//! The parsed intent: units resolved, sets closed, no host access.

mod disk;
mod virtio;

use std::ops::RangeInclusive;
use std::path::PathBuf;

use kvm::ram::HostPages;
use vfio::BackendKind;

use super::NumberList;
use crate::host::facts::PciAddress;
use crate::platform::Platform;

pub use disk::{
    BackingSpec, DiskAccess, DiskCache, DiskFormat, DiskSerial, DiskSpec, FormatSource,
};
pub use virtio::{
    BadMac, ConsoleChoice, DaemonKind, DaemonSpec, FsTag, MacAddress, NetSource, NetSpec, RngSpec,
    VirtioSpec, VsockSpec,
};

/// What the operator asked for, checked as far as it can be without a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// `[vm] platform`; `None` stands for `auto`.
    pub platform: Option<Platform>,
    /// `[vm] vcpus`, at least 1.
    pub vcpus: u32,
    /// `[vm] memory` in bytes, a multiple of 2 MiB, at least 2 MiB.
    pub memory: u64,
    /// `[vm] dma-rule`; `None` stands for the platform's default.
    pub dma_rule: Option<DmaRule>,
    /// `[vm] iommu`.
    pub iommu: IommuChoice,
    /// `[vm] dma-backend`; `None` stands for `auto`.
    pub dma_backend: Option<BackendKind>,
    /// `[vm] pkvm-device-dma`.
    pub isolation: DmaIsolation,
    /// `[vm] hotplug-ports` and `hotplug-window`.
    pub hotplug: HotplugSpec,
    /// `[boot]`; absent in configs that are only checked.
    pub boot: Option<BootSpec>,
    /// `[[device]]`, in the order of the file.
    pub devices: Vec<DeviceSpec>,
    /// `[[disk]]`, in the order of the file.
    pub disks: Vec<DiskSpec>,
    /// The other emulated devices.
    pub virtio: VirtioSpec,
    /// `[resources]`.
    pub resources: ResourceSpec,
}

/// What of the host the VM is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSpec {
    /// The pages that guest memory is made of.
    pub huge_pages: HostPages,
    /// Whether guest memory is filled before the guest runs, though its pages would come by themselves.
    pub prefault: bool,
    /// The NUMA nodes that memory comes from; any, if absent.
    pub numa_nodes: Option<NumberList>,
    /// The CPU that each vCPU runs on; any, if absent.
    pub pin_vcpus: Option<NumberList>,
}

/// What to do about a device that cannot reach all of DRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaRule {
    /// Refuse the VM.
    Strict,
    /// Warn: the guest bounces through memory that the device reaches.
    Bounce,
}

/// Whether a protected VM may have devices that reach its private memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DmaIsolation {
    /// No: a platform that does not keep them from it has none.
    #[default]
    Required,
    /// Yes: the operator gives the protection up.
    GivenUp,
}

/// Slots for devices that come while the VM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotplugSpec {
    /// How many, at most [`Self::MOST_PORTS`].
    pub ports: u8,
    /// Memory below 4 GiB for the BARs of the device in each of them: bytes, a multiple of 2 MiB, at most
    /// [`Self::LARGEST_WINDOW`].
    pub window: u64,
}

impl HotplugSpec {
    /// The most slots: each takes a bus, and 16 buses are what ECAM has room for beside other things.
    pub const MOST_PORTS: u8 = 15;
    /// The largest window.
    pub const LARGEST_WINDOW: u64 = 1 << 30;
    /// The window of a slot when nobody says: what Linux gives one unasked (`DEFAULT_HOTPLUG_MMIO_SIZE`,
    /// drivers/pci/pci.c).
    pub const USUAL_WINDOW: u64 = 2 << 20;
}

impl Default for HotplugSpec {
    fn default() -> Self {
        Self {
            ports: 0,
            window: Self::USUAL_WINDOW,
        }
    }
}

/// Whether the guest has an IOMMU of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IommuChoice {
    /// If a device has translated DMA.
    #[default]
    Auto,
    /// No.
    None,
    /// A virtio-iommu.
    Virtio,
}

/// What to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSpec {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The firmware that starts the kernel, on platforms that need one.
    pub firmware: Option<PathBuf>,
}

/// An assigned device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Which function of the host.
    pub pci: PciAddress,
    /// The operator's word on how many address bits it drives.
    pub dma_bits: Option<u8>,
    /// How its DMA is addressed.
    pub dma: DmaMode,
}

impl DeviceSpec {
    /// What an operator may say of how many address bits a device drives.
    pub const DMA_BITS: RangeInclusive<u8> = 24..=64;
}

/// How a device's DMA is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaMode {
    /// By guest-physical address (with the shared bit where the platform has one).
    Direct,
    /// By addresses that the guest chooses through a virtual IOMMU.
    Translated,
}
