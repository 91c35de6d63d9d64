//! The config's devices, matched with the host's.

use std::collections::{BTreeMap, BTreeSet};

use devices::pci::Bdf;

use super::bounds::Bounds;
use super::outcome::{DmaWidth, WidthSource};
use super::width;
use crate::config::spec::{DeviceSpec, DmaMode};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::host::class::is_bridge;
use crate::host::facts::{DeviceFacts, HostFacts, PciAddress};

/// An assigned device with all that is known of it.
#[derive(Debug, Clone)]
pub(super) struct Assigned<'a> {
    /// Its place in the config.
    pub(super) index: usize,
    pub(super) spec: &'a DeviceSpec,
    pub(super) facts: &'a DeviceFacts,
    pub(super) guest: Bdf,
    pub(super) width: DmaWidth,
    /// What it reaches, by its width and its IOMMU.
    pub(super) bounds: Bounds,
}

impl Assigned<'_> {
    pub(super) fn pci(&self) -> PciAddress {
        self.spec.pci
    }

    /// Whether its DMA is by guest-physical address.
    pub(super) fn is_direct(&self) -> bool {
        self.spec.dma == DmaMode::Direct
    }

    /// A diagnostic's place: the device, or its key.
    pub(super) fn place(&self, key: Option<&'static str>) -> Place {
        Place::Device(self.index, key)
    }
}

/// Matches the config's devices with the host's, and reports what cannot be assigned.
pub(super) fn resolve<'a>(
    wanted: &'a [DeviceSpec],
    facts: &'a HostFacts,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Assigned<'a>> {
    let host: BTreeMap<PciAddress, &DeviceFacts> = facts
        .devices
        .iter()
        .map(|device| (device.pci, device))
        .collect();
    let mut seen = BTreeSet::new();
    let mut slots = slots();
    let mut assigned = Vec::with_capacity(wanted.len());
    for (index, device) in wanted.iter().enumerate() {
        let place = |key| Place::Device(index, key);
        let problem = |code, message: String| {
            Diagnostic::error(code, message)
                .about(device.pci)
                .on(place(Some("pci")))
        };
        if !seen.insert(device.pci) {
            let message = format!("{} is assigned twice", device.pci);
            findings.push(problem(Code::DuplicateDevice, message));
            continue;
        }
        let Some(&facts) = host.get(&device.pci) else {
            let message = format!("the host has no PCI function {}", device.pci);
            let help = "`ccvm host` lists the functions of this host";
            findings.push(problem(Code::DeviceAbsent, message).with_help(help));
            continue;
        };
        if is_bridge(facts.class.0) {
            let message = format!("{} is a bridge: part of the host, not a device", device.pci);
            findings.push(problem(Code::DeviceNotAssignable, message));
            continue;
        }
        let Some(guest) = slots.next() else {
            let message = format!("no slot of the guest's PCI bus is left for {}", device.pci);
            let help = format!("a VM has at most {} assigned functions", 31 * 8);
            findings.push(problem(Code::TooManyDevices, message).with_help(help));
            continue;
        };
        let width = width::width(device, facts).unwrap_or_else(|wrong| {
            let (source, bits) = (wrong.source, wrong.bits);
            let from = source.name();
            let message = format!(
                "{} cannot drive {bits} address bits (from: {from})",
                device.pci
            );
            let key = (source == WidthSource::Override).then_some("dma-bits");
            let finding = Diagnostic::error(Code::ImpossibleDmaWidth, message).about(device.pci);
            let help = "a DMA width is 1 to 64 bits";
            findings.push(finding.on(place(key)).with_help(help));
            DmaWidth::assumed()
        });
        findings.extend(conflict(index, device.pci, &width));
        let bounds = Bounds::of(facts, width.bits);
        assigned.push(Assigned {
            index,
            spec: device,
            facts,
            guest,
            width,
            bounds,
        });
    }
    check_groups(&assigned, facts, findings);
    assigned
}

/// The functions of bus 0 for assigned devices, behind them the virtual IOMMU, and behind that emulated
/// devices: each in a slot of its own, then the slots' other functions. Slot 0 is the root's.
pub(super) fn slots() -> impl Iterator<Item = Bdf> {
    (0..8).flat_map(|function| (1..32).filter_map(move |slot| Bdf::new(0, slot, function)))
}

/// Sources that disagree are never settled silently.
fn conflict(index: usize, pci: PciAddress, width: &DmaWidth) -> Option<Diagnostic> {
    let differing: Vec<String> = width
        .others
        .iter()
        .filter(|(_, bits)| *bits != width.bits)
        .map(|(source, bits)| format!("{} says {bits}", source.name()))
        .collect();
    if differing.is_empty() {
        return None;
    }
    let least = width.others.iter().map(|(_, bits)| *bits).min()?;
    let message = format!(
        "{pci} is taken to drive {} address bits (from: {}), but {}",
        width.bits,
        width.source.name(),
        differing.join(" and ")
    );
    let finding = Diagnostic::warning(Code::DmaWidthConflict, message).about(pci);
    let finding = if least < width.bits {
        finding.with_help(format!(
            "if {least} is right, DMA beyond {least} bits is lost or hits other memory: set `dma-bits = {least}` to be safe"
        ))
    } else {
        finding
    };
    Some(finding.on(Place::Device(index, None)))
}

/// VFIO hands out whole IOMMU groups. Bindings may still change before a launch, which checks them
/// again: here they are warnings.
fn check_groups(assigned: &[Assigned<'_>], facts: &HostFacts, findings: &mut Vec<Diagnostic>) {
    let ours: BTreeSet<PciAddress> = assigned.iter().map(Assigned::pci).collect();
    let mut foreign: BTreeMap<u32, Vec<&DeviceFacts>> = BTreeMap::new();
    for device in &facts.devices {
        let Some(group) = device.group.filter(|_| !ours.contains(&device.pci)) else {
            continue;
        };
        if !device.driver.as_deref().is_none_or(shares_a_group) {
            foreign.entry(group).or_default().push(device);
        }
    }
    for device in assigned {
        let pci = device.pci();
        let finding = |code, message| {
            Diagnostic::warning(code, message)
                .about(pci)
                .on(device.place(Some("pci")))
        };
        let Some(group) = device.facts.group else {
            let message = format!("the IOMMU group of {pci} is not known");
            let help = "VFIO assigns only functions that an IOMMU isolates";
            findings.push(finding(Code::NoIommuGroup, message).with_help(help));
            continue;
        };
        for member in foreign.get(&group).into_iter().flatten() {
            let driver = member.driver.as_deref().unwrap_or("none");
            let message = format!(
                "{pci} shares IOMMU group {group} with {}, which the host's driver {driver} has",
                member.pci
            );
            let help = format!(
                "take it from the host with `ccvm device bind {}`, or assign a function in a group of its own",
                member.pci
            );
            findings.push(finding(Code::GroupNotViable, message).with_help(help));
        }
    }
}

/// Drivers that the kernel lets share a group with VFIO: they leave DMA to the group's owner.
fn shares_a_group(driver: &str) -> bool {
    driver.contains("vfio") || matches!(driver, "pcieport" | "pci-stub")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_used_before_any_second_function() {
        let slots: Vec<Bdf> = slots().collect();
        assert_eq!(slots.len(), 248);
        assert_eq!(slots[0].to_string(), "00:01.0");
        assert_eq!(slots[30].to_string(), "00:1f.0");
        assert_eq!(slots[31].to_string(), "00:01.1");
        assert_eq!(slots[247].to_string(), "00:1f.7");
    }
}
