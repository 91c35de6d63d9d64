//! One config on one host: what each device demands, and what can be had with it.

use devices::pci::Bdf;
use vfio::BackendKind;

use super::assigned::Assigned;
use super::bounds::{Bounds, reach_of};
use super::emulated::{self, PlannedFunction};
use super::layout::{Layout, Problem};
use super::machine::Machine;
use super::ports::Ports;
use super::windows::BarRooms;
use crate::config::spec::DmaRule;
use crate::host::facts::{Arch, PciAddress};
use crate::platform::{Platform, SharedAlias};

/// The unit of DRAM: what a huge page maps.
pub(super) const GRANULE: u64 = 2 << 20;

/// A config and a host, ready to be placed.
#[derive(Debug, Clone)]
pub(super) struct Case<'a> {
    pub(super) arch: Arch,
    pub(super) vcpus: u32,
    pub(super) memory: u64,
    pub(super) platform: Platform,
    pub(super) rule: DmaRule,
    /// What makes the DMA tables.
    pub(super) backend: BackendKind,
    /// Whether the width of the space is forced.
    pub(super) forced: bool,
    /// Widths that the host offers, ascending.
    pub(super) widths: Vec<u8>,
    pub(super) assigned: Vec<Assigned<'a>>,
    pub(super) machine: Machine,
    /// Where the guest sees its IOMMU.
    pub(super) iommu: Option<Bdf>,
    /// The emulated devices.
    pub(super) functions: Vec<PlannedFunction>,
    /// The slots for devices that come later.
    pub(super) ports: Ports,
}

/// The most memory, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// If no device had to reach it.
    pub(super) without_devices: u64,
    /// With all devices.
    pub(super) together: u64,
    /// With each direct device by itself: its index in the config and the memory. A device that is
    /// not listed costs nothing.
    alone: Vec<(usize, u64)>,
}

impl Room {
    /// The most memory that `device` by itself allows.
    pub(super) fn alone(&self, device: &Assigned<'_>) -> u64 {
        let mut alone = self.alone.iter();
        let own = alone.find(|(index, _)| *index == device.index);
        own.map_or(self.without_devices, |(_, most)| *most)
    }
}

impl<'a> Case<'a> {
    pub(super) fn alias(&self) -> SharedAlias {
        self.platform.shared_alias()
    }

    /// The devices whose DMA is by guest-physical address. A confidential VM has no others, whatever
    /// the config says.
    pub(super) fn direct(&self) -> impl Iterator<Item = &Assigned<'a>> {
        let all = self.platform.is_confidential();
        self.assigned
            .iter()
            .filter(move |device| all || device.is_direct())
    }

    /// Whether narrow devices are the guest's problem.
    fn bounces(&self) -> bool {
        self.alias() == SharedAlias::InPlace && self.rule == DmaRule::Bounce
    }

    /// How many functions there are on the guest's bus that have the registers of a virtio device.
    fn virtio_functions(&self) -> usize {
        virtio_functions(self.iommu, &self.functions)
    }

    /// What `device` demands of the placement under this config's rule.
    pub(super) fn demands(&self, device: &Assigned<'_>) -> Bounds {
        if self.bounces() || self.forced {
            device.bounds.at_any_width()
        } else {
            device.bounds.clone()
        }
    }

    /// What all devices together demand.
    pub(super) fn together(&self) -> Bounds {
        let mut seen: Vec<Bounds> = Vec::new();
        for demands in self.direct().map(|device| self.demands(device)) {
            // Most devices of a host demand the same.
            if !seen.contains(&demands) {
                seen.push(demands);
            }
        }
        seen.iter()
            .fold(Bounds::unlimited(), |all, one| all.and(one))
    }

    /// The same with another size of memory.
    pub(super) fn with_memory(&self, memory: u64) -> Self {
        Self {
            memory,
            ..self.clone()
        }
    }

    /// The same without a device: neither its demands nor its BARs.
    pub(super) fn without(&self, pci: PciAddress) -> Self {
        let others = self.assigned.iter().filter(|device| device.pci() != pci);
        let assigned: Vec<Assigned<'a>> = others.cloned().collect();
        Self {
            machine: machine(
                self.arch,
                self.vcpus,
                &assigned,
                (self.virtio_functions(), &self.ports),
            ),
            assigned,
            ..self.clone()
        }
    }

    /// The placement problem under `bounds`, in spaces of `widths` bits.
    pub(super) fn problem<'p>(&'p self, bounds: &'p Bounds, widths: &'p [u8]) -> Problem<'p> {
        let narrowest = self
            .direct()
            .map(|device| reach_of(device.width.bits))
            .min();
        Problem {
            machine: &self.machine,
            alias: self.alias(),
            accepted: self.platform.accepted_alias(),
            granule: GRANULE,
            widths,
            bounds,
            bounce_below: narrowest.filter(|_| self.bounces()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn solve(&self, bounds: &Bounds) -> Option<Layout> {
        self.problem(bounds, &self.widths).solve(self.memory)
    }

    pub(super) fn max_memory(&self, bounds: &Bounds) -> u64 {
        self.problem(bounds, &self.widths).max_memory()
    }

    /// How much memory there can be, by which devices count. Devices with equal demands are asked
    /// once.
    pub(super) fn room(&self, together: &Bounds) -> Room {
        let mut asked = vec![(Bounds::unlimited(), self.max_memory(&Bounds::unlimited()))];
        let mut ask = |demands: Bounds| match asked.iter().find(|(bounds, _)| *bounds == demands) {
            Some((_, most)) => *most,
            None => {
                let most = self.max_memory(&demands);
                asked.push((demands, most));
                most
            }
        };
        let without_devices = ask(Bounds::unlimited());
        let together = ask(together.clone());
        // Where all devices together cost nothing, none does.
        let costly = self.direct().filter(|_| together < without_devices);
        let alone = costly.map(|device| (device.index, ask(self.demands(device))));
        Room {
            without_devices,
            together,
            alone: alone.collect(),
        }
    }
}

/// How many virtio functions an IOMMU, if there is one, and emulated devices are.
pub(super) fn virtio_functions(iommu: Option<Bdf>, functions: &[PlannedFunction]) -> usize {
    usize::from(iommu.is_some()) + functions.len()
}

/// The machine that holds these devices, so many virtio functions, and these slots.
pub(super) fn machine(
    arch: Arch,
    vcpus: u32,
    assigned: &[Assigned<'_>],
    (virtio_functions, ports): (usize, &Ports),
) -> Machine {
    let bars = assigned.iter().flat_map(|device| &device.facts.bars);
    let bars = bars.chain(std::iter::repeat_n(&emulated::BAR, virtio_functions));
    let rooms = BarRooms::of(bars).with_ports(ports.count(), ports.window);
    Machine::new(arch, vcpus, &rooms)
}
