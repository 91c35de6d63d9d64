//! The virtual IOMMU: whether there is one, and what it can translate.

use devices::pci::Bdf;
use iommu::{Iova, PageRange};

use super::assigned::{Assigned, slots};
use super::bounds::{ADDRESSES, reach_of};
use super::case::Case;
use super::layout::Layout;
use super::span::Span;
use crate::config::spec::{IommuChoice, VmSpec};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::platform::SharedAlias;

/// The guest's IOMMU, in front of every assigned device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedIommu {
    /// Where the guest sees it. It does not translate for itself.
    pub guest: Bdf,
    /// The addresses that the guest can have translated: those that every device and the IOMMU behind
    /// it reach. Where shared pages have an alias, it is among them.
    pub input: PageRange<Iova>,
    /// What a device reaches that the guest has attached to no domain.
    pub unattached: Unattached,
}

/// What a device reaches before the guest's driver attaches it to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unattached {
    /// What it would without a virtual IOMMU, by guest-physical addresses: a guest without a driver
    /// for it works.
    Bypass,
    /// Nothing: some device could not be given all of DRAM at its guest-physical addresses.
    Blocked,
}

/// Where the guest sees the IOMMU, if it has one.
pub(super) fn place(
    spec: &VmSpec,
    assigned: &[Assigned<'_>],
    findings: &mut Vec<Diagnostic>,
) -> Option<Bdf> {
    let mut translated = assigned.iter().filter(|device| !device.is_direct());
    match spec.iommu {
        IommuChoice::None => {
            findings.extend(translated.map(absent));
            return None;
        }
        IommuChoice::Auto => {
            translated.next()?;
        }
        IommuChoice::Virtio => {}
    }
    let slot = slots().nth(assigned.len());
    if slot.is_none() {
        let message = "no slot of the guest's PCI bus is left for the virtual IOMMU";
        let finding = Diagnostic::error(Code::TooManyDevices, message);
        findings.push(finding.on(Place::Vm("iommu")));
    }
    slot
}

fn absent(device: &Assigned<'_>) -> Diagnostic {
    let message = format!(
        "{} has translated DMA, and the VM has no virtual IOMMU",
        device.pci()
    );
    Diagnostic::error(Code::VirtualIommuAbsent, message)
        .about(device.pci())
        .on(device.place(Some("dma")))
        .with_help("leave out `iommu = \"none\"`, or use `dma = \"direct\"`")
}

/// The end of what the narrowest of all devices, and of the IOMMUs behind them, reaches.
pub(super) fn input_end(assigned: &[Assigned<'_>]) -> u64 {
    let reach = |device: &Assigned<'_>| reach_of(device.width.bits).min(device.bounds.aperture_end);
    assigned.iter().map(reach).min().unwrap_or(ADDRESSES.end)
}

impl PlannedIommu {
    pub(super) fn new(guest: Bdf, case: &Case<'_>, layout: &Layout) -> Option<Self> {
        let end = Iova::new(input_end(&case.assigned));
        let alias = match case.alias() {
            SharedAlias::TopBit => reach_of(layout.width) / 2,
            SharedAlias::InPlace => 0,
        };
        let mut dram = layout.dram.iter().filter_map(|span| {
            Span::new(span.start.checked_add(alias)?, span.end.checked_add(alias)?)
        });
        let everywhere = dram.all(|dram| {
            let mut mappable = case.assigned.iter().map(|device| &device.bounds.mappable);
            mappable.all(|mappable| mappable.bytes_in(dram) == dram.bytes())
        });
        Some(Self {
            guest,
            input: PageRange::from_bounds(Iova::new(0), end).ok()?,
            unattached: match everywhere {
                true => Unattached::Bypass,
                false => Unattached::Blocked,
            },
        })
    }
}
