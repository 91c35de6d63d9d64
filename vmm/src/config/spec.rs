//! The parsed intent: units resolved, sets closed, no host access.

use std::path::PathBuf;

use crate::host::facts::PciAddress;
use crate::platform::Platform;

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
    /// `[boot]`; absent in configs that are only checked.
    pub boot: Option<BootSpec>,
    /// `[[device]]`, in the order of the file.
    pub devices: Vec<DeviceSpec>,
}

/// What to do about a device that cannot reach all of DRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaRule {
    /// Refuse the VM.
    Strict,
    /// Warn: the guest bounces through memory that the device reaches.
    Bounce,
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

/// How a device's DMA is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaMode {
    /// By guest-physical address (with the shared bit where the platform has one).
    Direct,
    /// By addresses that the guest chooses through a virtual IOMMU.
    Translated,
}
