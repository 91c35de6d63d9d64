//! Devices of a VM whose platform does not keep them from its private memory.
//!
//! pKVM takes a guest's pages from the host's processors, and leaves the host's IOMMUs to the host
//! (Linux 7.3): an assigned device reads and writes private pages. And it tells nobody which pages are
//! shared: an emulated device that touched another one would end this process.

use super::assigned::Assigned;
use super::emulated;
use crate::config::spec::{DmaIsolation, DmaMode, IommuChoice, VmSpec};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::platform::Platform;

/// Why a VM of this config cannot be of this kind, in a few words; `None` when it can.
pub(super) fn obstacle(spec: &VmSpec, platform: Platform) -> Option<&'static str> {
    if platform != Platform::Pkvm {
        return None;
    }
    if needs_iommu(spec) {
        return Some("it has no virtual IOMMU");
    }
    if emulated::devices(spec).next().is_some() {
        return Some("it has no emulated devices that read guest memory");
    }
    let assigned = !spec.devices.is_empty() && spec.isolation == DmaIsolation::Required;
    assigned.then_some("it does not keep assigned devices from private memory")
}

fn needs_iommu(spec: &VmSpec) -> bool {
    let mut devices = spec.devices.iter();
    let translated = devices.any(|device| device.dma == DmaMode::Translated);
    match spec.iommu {
        IommuChoice::Virtio => true,
        IommuChoice::Auto => translated,
        IommuChoice::None => false,
    }
}

/// Findings on devices that the platform cannot have, or not without giving its protection up.
pub(super) fn check(
    spec: &VmSpec,
    platform: Platform,
    assigned: &[Assigned<'_>],
    findings: &mut Vec<Diagnostic>,
) {
    if platform != Platform::Pkvm {
        return;
    }
    if needs_iommu(spec) {
        let message = "a protected VM of pKVM has no virtual IOMMU: ccvm is not told which pages it could read";
        let finding = Diagnostic::error(Code::EmulatedDmaImpossible, message);
        let help = "leave `iommu` out, and `dma = \"translated\"` of the devices";
        findings.push(finding.on(Place::Vm("iommu")).with_help(help));
    }
    let emulated = emulated::devices(spec);
    findings.extend(emulated.map(|(place, _)| {
        let message = "a protected VM of pKVM has no emulated device that reads its memory: ccvm is not told which pages it could read";
        let finding = Diagnostic::error(Code::EmulatedDmaImpossible, message);
        finding.on(place).with_help("leave the device out, or take another platform")
    }));
    let devices = assigned.iter();
    findings.extend(devices.map(|device| match spec.isolation {
        DmaIsolation::Required => refused(device),
        DmaIsolation::GivenUp => given_up(device),
    }));
}

fn refused(device: &Assigned<'_>) -> Diagnostic {
    let pci = device.pci();
    let message = format!(
        "{pci} would read and write the private memory of the VM: pKVM does not keep devices from it"
    );
    let help = "leave the device out, take another platform, or give the protection up: `pkvm-device-dma = \"not-isolated\"` in `[vm]`";
    Diagnostic::error(Code::DmaNotIsolated, message)
        .about(pci)
        .on(device.place(None))
        .with_help(help)
}

fn given_up(device: &Assigned<'_>) -> Diagnostic {
    let pci = device.pci();
    let message =
        format!("{pci} reads and writes the private memory of the VM, as the config says");
    Diagnostic::warning(Code::DmaIsolationGivenUp, message)
        .about(pci)
        .on(Place::Vm("pkvm-device-dma"))
}
