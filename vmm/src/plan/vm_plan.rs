//! The plan itself: what launching and running a VM build on.

use devices::pci::Bdf;
use iommu::{Gpa, PageRange};

use super::WidthSource;
use super::assigned::Assigned;
use super::case::Case;
use super::highest_dma_address;
use super::layout::Layout;
use super::span::Span;
use crate::config::spec::DmaMode;
use crate::host::facts::PciAddress;
use crate::platform::{Platform, SharedAlias};

/// A placement for which the DMA rule holds. Having one is the proof: only the planner makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPlan {
    platform: Platform,
    ipa_bits: u8,
    vcpus: u32,
    dram: Vec<PageRange<Gpa>>,
    mmio: Option<MmioLayout>,
    pci_windows: Vec<PciWindow>,
    devices: Vec<PlannedDevice>,
}

/// Where the platform's own devices answer (Arm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioLayout {
    /// GICv3 distributor, 64 KiB.
    pub gic_distributor: PageRange<Gpa>,
    /// GICv3 ITS, 128 KiB.
    pub gic_its: PageRange<Gpa>,
    /// GICv3 redistributors, 128 KiB for each vCPU.
    pub gic_redistributors: PageRange<Gpa>,
    /// 16550 serial port, one page.
    pub serial: PageRange<Gpa>,
    /// PL031 real-time clock, one page.
    pub rtc: PageRange<Gpa>,
    /// PCI configuration space of bus 0, 1 MiB.
    pub ecam: PageRange<Gpa>,
}

/// A range of guest-physical space that the PCI root passes on to functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciWindow {
    /// Where; PCI memory addresses equal guest-physical ones, I/O ports start at 0.
    pub range: PageRange<Gpa>,
    /// What.
    pub kind: PciWindowKind,
}

/// What a PCI window passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PciWindowKind {
    /// I/O ports.
    Io,
    /// Memory, wholly below 4 GiB.
    Mem32,
    /// Memory for 64-bit BARs.
    Mem64,
}

/// An assigned device with its place and its reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDevice {
    /// The host function.
    pub pci: PciAddress,
    /// Where the guest sees it.
    pub guest: Bdf,
    /// How many address bits it drives.
    pub dma_bits: u8,
    /// Who says so.
    pub dma_bits_source: WidthSource,
    /// How its DMA is addressed.
    pub dma: DmaMode,
    /// The highest address that it will be told to use, inclusive.
    pub highest_dma_address: u64,
}

impl VmPlan {
    /// The plan of `case` with this layout, for which the caller has seen that the rule holds.
    pub(super) fn new(case: &Case<'_>, layout: &Layout) -> Option<Self> {
        let pages =
            |span: &Span| PageRange::from_bounds(Gpa::new(span.start), Gpa::new(span.end)).ok();
        let arm = case.machine.mmio(layout.platform);
        let window = |span: Option<Span>, kind| {
            let range = pages(&span?)?;
            Some(PciWindow { range, kind })
        };
        let windows = [
            arm.and_then(|(_, io)| io),
            window(layout.mem32, PciWindowKind::Mem32),
            window(layout.mem64, PciWindowKind::Mem64),
        ];
        let planned = |device: &Assigned<'_>| PlannedDevice {
            pci: device.pci(),
            guest: device.guest,
            dma_bits: device.width.bits,
            dma_bits_source: device.width.source,
            dma: device.spec.dma,
            highest_dma_address: highest_dma_address(case, device, layout),
        };
        Some(Self {
            platform: case.platform,
            ipa_bits: layout.width,
            vcpus: case.vcpus,
            dram: layout.dram.iter().map(pages).collect::<Option<_>>()?,
            mmio: arm.map(|(mmio, _)| mmio),
            pci_windows: windows.into_iter().flatten().collect(),
            devices: case.assigned.iter().map(planned).collect(),
        })
    }

    /// The kind of VM.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// Width of the guest-physical space, the argument of `KVM_VM_TYPE_ARM_IPA_SIZE` on Arm.
    #[must_use]
    pub fn ipa_bits(&self) -> u8 {
        self.ipa_bits
    }

    /// The bit that a shared page's address has set, where the platform has one.
    #[must_use]
    pub fn shared_bit(&self) -> Option<u8> {
        match self.platform.shared_alias() {
            SharedAlias::TopBit => self.ipa_bits.checked_sub(1),
            SharedAlias::InPlace => None,
        }
    }

    /// How many vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// DRAM, ascending, disjoint, each start and length a multiple of 2 MiB.
    #[must_use]
    pub fn dram(&self) -> &[PageRange<Gpa>] {
        &self.dram
    }

    /// The platform's own devices; only an Arm VM has them.
    #[must_use]
    pub fn mmio(&self) -> Option<&MmioLayout> {
        self.mmio.as_ref()
    }

    /// The PCI windows.
    #[must_use]
    pub fn pci_windows(&self) -> &[PciWindow] {
        &self.pci_windows
    }

    /// The assigned devices, in the order of the config.
    #[must_use]
    pub fn devices(&self) -> &[PlannedDevice] {
        &self.devices
    }
}
