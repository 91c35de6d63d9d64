//! What a machine has besides DRAM: the arch-specific part of the layout.
//!
//! ```text
//! roomy, Arm    0        16 MiB      256 MiB                1 GiB
//!               ┊        │ platform  │ PCI memory window    │ DRAM ...           │ 64-bit window
//! roomy, x86    0                               3 GiB       │ 3.5 GiB   │ 0xfec00000   │ 4 GiB
//!               │ DRAM ...                      │ window    │ platform  │ (interrupts) │ DRAM ...
//! ```

use devices::ports::PortRange;
use iommu::{Gpa, PageRange};

use super::bounds::ADDRESSES;
use super::pack::Block;
use super::span::Span;
use super::windows::{BarRooms, FOUR_GIB, Room};
use super::{Board, MmioLayout, PcLayout, PciWindow, PciWindowKind};
use crate::host::facts::Arch;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The blocks that a layout must place.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    arch: Arch,
    vcpus: u32,
    io: bool,
    /// PCI configuration space, in bytes.
    ecam: u64,
    /// The platform's devices, as one block.
    pub(super) platform: Block,
    /// The choices of PCI memory windows.
    pub(super) windows: Vec<WindowSet>,
    /// Addresses where the processor itself answers, in whole granules.
    pub(super) fixed: Vec<Span>,
    /// The layout of first choice.
    pub(super) roomy: Option<Roomy>,
}

/// PCI memory windows that together hold every BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowSet {
    /// Below 4 GiB.
    pub(super) mem32: Option<Block>,
    /// Above 4 GiB.
    pub(super) mem64: Option<Block>,
}

/// A layout with slack and customary addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roomy {
    /// No DRAM here.
    pub(super) mmio: Span,
    /// The platform block stands at the start of this.
    pub(super) platform: Span,
    /// The window below 4 GiB.
    pub(super) window: Span,
}

impl Machine {
    pub(super) fn new(arch: Arch, vcpus: u32, rooms: &BarRooms) -> Self {
        let (lowest, fixed, roomy) = match arch {
            Arch::Aarch64 => (
                0,
                vec![],
                Roomy {
                    mmio: span(0, GIB),
                    platform: span(16 * MIB, 256 * MIB),
                    window: span(256 * MIB, GIB),
                },
            ),
            // IOAPIC, HPET, local APIC and the reset vector.
            Arch::X86_64 => (
                16 * MIB,
                vec![span(0xfec0_0000, FOUR_GIB)],
                Roomy {
                    mmio: span(3 * GIB, FOUR_GIB),
                    platform: span(0xe000_0000, 0xfec0_0000),
                    window: span(3 * GIB, 0xe000_0000),
                },
            ),
        };
        let io = rooms.io;
        let ecam = ecam_bytes(rooms.ports);
        Self {
            arch,
            vcpus,
            io,
            ecam,
            platform: Block {
                size: platform_bytes(arch, vcpus, io, ecam),
                align: ecam,
                lowest,
                end: ADDRESSES.end,
            },
            // A BAR at address 0 counts as not assigned.
            windows: window_sets(rooms, lowest.max(1)),
            fixed,
            roomy: Some(roomy),
        }
    }

    /// The platform's devices, with their block at `base`, and the window of I/O ports in it.
    pub(super) fn board(&self, base: u64) -> Option<(Board, Option<PciWindow>)> {
        match self.arch {
            Arch::Aarch64 => self.arm(base),
            Arch::X86_64 => {
                let ecam = Cursor(base).take(self.ecam)?;
                let ports = if self.io { PCI_PORTS } else { None };
                Some((Board::Pc(PcLayout { ecam, ports }), None))
            }
        }
    }

    fn arm(&self, base: u64) -> Option<(Board, Option<PciWindow>)> {
        // In descending order of alignment, so that there are no gaps.
        let mut items = Cursor(base);
        let ecam = items.take(self.ecam)?;
        let gic_distributor = items.take(GIC_DISTRIBUTOR)?;
        let gic_its = items.take(GIC_ITS)?;
        let gic_redistributors = items.take(redistributors(self.vcpus))?;
        let io = if self.io { items.take(IO_PORTS) } else { None };
        let mmio = MmioLayout {
            gic_distributor,
            gic_its,
            gic_redistributors,
            serial: items.take(PAGE)?,
            rtc: items.take(PAGE)?,
            gpio: items.take(PAGE)?,
            ecam,
        };
        let kind = PciWindowKind::Io;
        Some((Board::Arm(mmio), io.map(|range| PciWindow { range, kind })))
    }
}

const PAGE: u64 = 4 * KIB;
/// PCI configuration space of one bus.
const ECAM_BUS: u64 = MIB;
const GIC_DISTRIBUTOR: u64 = 64 * KIB;
const GIC_ITS: u64 = 128 * KIB;
const IO_PORTS: u64 = 64 * KIB;
/// Above the ports that devices of a PC have had since the first one.
const PCI_PORTS: Option<PortRange> = PortRange::new(0x1000, 0xffff);

const fn redistributors(vcpus: u32) -> u64 {
    128 * KIB * vcpus as u64
}

/// Configuration space of bus 0 and a bus for each port: a power of two, at a multiple of which it begins
/// (PCI Express Base, 7.2.2).
fn ecam_bytes(ports: u8) -> u64 {
    ECAM_BUS * (u64::from(ports) + 1).next_power_of_two()
}

/// The size of the platform block.
fn platform_bytes(arch: Arch, vcpus: u32, io: bool, ecam: u64) -> u64 {
    match arch {
        Arch::Aarch64 => {
            let gic = GIC_DISTRIBUTOR + GIC_ITS + redistributors(vcpus);
            ecam + gic + if io { IO_PORTS } else { 0 } + 3 * PAGE
        }
        Arch::X86_64 => ecam,
    }
}

struct Cursor(u64);

impl Cursor {
    fn take(&mut self, bytes: u64) -> Option<PageRange<Gpa>> {
        let range = PageRange::new(Gpa::new(self.0), bytes).ok()?;
        self.0 = range.end().raw();
        Some(range)
    }
}

/// One window below 4 GiB for all, or 64-bit BARs in their own above: a Linux guest puts 64-bit
/// BARs in any window where both are low, so two low windows could not be sized.
fn window_sets(rooms: &BarRooms, lowest: u64) -> Vec<WindowSet> {
    let low = |room: Room| Block {
        size: room.size,
        align: room.align,
        lowest,
        end: FOUR_GIB,
    };
    let high = |room: Room| Block {
        size: room.size,
        align: room.align,
        lowest: FOUR_GIB,
        end: ADDRESSES.end,
    };
    let mut sets = vec![WindowSet {
        mem32: rooms.memory().map(low),
        mem64: None,
    }];
    if let Some(mem64) = rooms.mem64 {
        sets.push(WindowSet {
            mem32: rooms.mem32.map(low),
            mem64: Some(high(mem64)),
        });
    }
    sets
}

const fn span(start: u64, end: u64) -> Span {
    Span { start, end }
}
