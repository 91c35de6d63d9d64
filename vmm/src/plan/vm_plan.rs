//! The plan itself: what launching and running a VM build on.

use devices::pci::Bdf;
use devices::ports::PortRange;
use iommu::{Gpa, PageRange};
use vfio::BackendKind;

use super::WidthSource;
use super::admission::Frame;
use super::assigned::Assigned;
use super::case::Case;
use super::emulated::PlannedFunction;
use super::highest_dma_address;
use super::layout::Layout;
use super::ports::PlannedPort;
use super::span::Span;
use super::virtual_iommu::PlannedIommu;
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
    board: Board,
    pci_windows: Vec<PciWindow>,
    devices: Vec<PlannedDevice>,
    iommu: Option<PlannedIommu>,
    functions: Vec<PlannedFunction>,
    dma_backend: BackendKind,
    ports: Vec<PlannedPort>,
    pub(super) frame: Frame,
}

/// Where the machine's own devices answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// On arm64, where all of them are in memory.
    Arm(MmioLayout),
    /// On x86-64, where most have I/O ports, or addresses that never change.
    Pc(PcLayout),
}

/// Where the devices of a PC answer, as far as that is up to the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcLayout {
    /// PCI configuration space, 1 MiB for each bus from 0 on.
    pub ecam: PageRange<Gpa>,
    /// I/O ports that the PCI root passes on to functions, if one of them wants any.
    pub ports: Option<PortRange>,
}

/// The last bus of which `ecam` is the configuration space.
#[must_use]
pub fn last_bus(ecam: PageRange<Gpa>) -> u8 {
    const BUS: u64 = 1 << 20;
    u8::try_from((ecam.bytes() / BUS).saturating_sub(1)).unwrap_or(u8::MAX)
}

/// Where messages to local APICs go on x86-64: 1 MiB from 0xfee0_0000 on (Intel SDM, 12.11.1).
const LOCAL_APICS: u64 = 0xfee0_0000;
const LOCAL_APICS_BYTES: u64 = 1 << 20;

impl Board {
    /// PCI configuration space, 1 MiB for each bus from 0 on.
    #[must_use]
    pub fn ecam(&self) -> PageRange<Gpa> {
        match self {
            Self::Arm(arm) => arm.ecam,
            Self::Pc(pc) => pc.ecam,
        }
    }

    /// Where functions write their message interrupts.
    #[must_use]
    pub fn doorbell(&self) -> Option<PageRange<Gpa>> {
        match self {
            Self::Arm(arm) => arm.doorbell(),
            Self::Pc(_) => PageRange::new(Gpa::new(LOCAL_APICS), LOCAL_APICS_BYTES).ok(),
        }
    }

    /// I/O ports that the PCI root passes on, on a machine that has ports of its own.
    #[must_use]
    pub fn pci_ports(&self) -> Option<PortRange> {
        match self {
            Self::Arm(_) => None,
            Self::Pc(pc) => pc.ports,
        }
    }
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
    /// PL061 GPIO controller, to which the power button is wired, one page.
    pub gpio: PageRange<Gpa>,
    /// PCI configuration space, 1 MiB for each bus from 0 on.
    pub ecam: PageRange<Gpa>,
}

impl MmioLayout {
    /// Where functions write their message interrupts: the frame of `GITS_TRANSLATER`, the second half
    /// of the ITS.
    fn doorbell(&self) -> Option<PageRange<Gpa>> {
        let its = self.gic_its;
        let frame = Gpa::new(its.start().raw().checked_add(its.bytes() / 2)?);
        PageRange::from_bounds(frame, its.end()).ok()
    }
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
    /// `backend` is what the config says of it.
    pub(super) fn new(
        case: &Case<'_>,
        layout: &Layout,
        backend: Option<BackendKind>,
    ) -> Option<Self> {
        let pages =
            |span: &Span| PageRange::from_bounds(Gpa::new(span.start), Gpa::new(span.end)).ok();
        let (board, ports) = case.machine.board(layout.platform)?;
        let window = |span: Option<Span>, kind| {
            let range = pages(&span?)?;
            Some(PciWindow { range, kind })
        };
        let windows = [
            ports,
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
        let iommu = match case.iommu {
            Some(guest) => Some(PlannedIommu::new(guest, case, layout)?),
            None => None,
        };
        Some(Self {
            platform: case.platform,
            ipa_bits: layout.width,
            vcpus: case.vcpus,
            dram: layout.dram.iter().map(pages).collect::<Option<_>>()?,
            board,
            pci_windows: windows.into_iter().flatten().collect(),
            devices: case.assigned.iter().map(planned).collect(),
            iommu,
            functions: case.functions.clone(),
            dma_backend: case.backend,
            ports: case.ports.list.clone(),
            frame: Frame::new(case, layout, backend),
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

    /// The bit that is set in the address by which an accepted device names a shared page, where the platform
    /// has one.
    #[must_use]
    pub fn accepted_shared_bit(&self) -> Option<u8> {
        match self.platform.accepted_alias() {
            SharedAlias::TopBit => self.ipa_bits.checked_sub(1),
            SharedAlias::InPlace => None,
        }
    }

    /// The bit that is set in the addresses at which KVM is told of devices, if there is one.
    #[must_use]
    pub fn device_bit(&self) -> Option<u8> {
        match self.platform.device_alias() {
            SharedAlias::TopBit => self.shared_bit(),
            SharedAlias::InPlace => None,
        }
    }

    /// How many vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// Guest memory in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.dram.iter().map(|range| range.bytes()).sum()
    }

    /// DRAM, ascending, disjoint, each start and length a multiple of 2 MiB.
    #[must_use]
    pub fn dram(&self) -> &[PageRange<Gpa>] {
        &self.dram
    }

    /// The machine's own devices.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The PCI windows.
    #[must_use]
    pub fn pci_windows(&self) -> &[PciWindow] {
        &self.pci_windows
    }

    /// By which interface of the kernel the devices' DMA tables are made.
    #[must_use]
    pub fn dma_backend(&self) -> BackendKind {
        self.dma_backend
    }

    /// The assigned devices, in the order of the config.
    #[must_use]
    pub fn devices(&self) -> &[PlannedDevice] {
        &self.devices
    }

    /// The emulated devices.
    #[must_use]
    pub fn functions(&self) -> &[PlannedFunction] {
        &self.functions
    }

    /// The slots for devices that come while the VM runs.
    #[must_use]
    pub fn ports(&self) -> &[PlannedPort] {
        &self.ports
    }

    /// Memory for the BARs of the device in each of the slots, in bytes.
    #[must_use]
    pub fn port_window(&self) -> u64 {
        self.frame.window
    }

    /// The guest's IOMMU, if it has one.
    #[must_use]
    pub fn iommu(&self) -> Option<&PlannedIommu> {
        self.iommu.as_ref()
    }
}
