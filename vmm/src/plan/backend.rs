//! By which interface of the kernel the devices' DMA tables are made, and whether they are big enough.

use vfio::BackendKind;

use super::assigned::Assigned;
use super::case::Case;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::host::facts::{HostFacts, VfioFacts};

/// What conversions, and mappings of a guest's IOMMU, are made in.
const PAGE: u64 = 4096;

/// What the config says, or iommufd where the host has it for all assigned devices, else type1.
///
/// Whether a device has a node for iommufd shows only when it is bound to VFIO; until then it is taken
/// to have one.
pub(super) fn choose(
    wanted: Option<BackendKind>,
    facts: &HostFacts,
    assigned: &[Assigned<'_>],
    findings: &mut Vec<Diagnostic>,
) -> BackendKind {
    let vfio = facts.vfio.as_ref();
    let without_node = assigned
        .iter()
        .find(|device| device.facts.own_node == Some(false));
    let missing = match (vfio, without_node) {
        (Some(VfioFacts { iommufd: false, .. }), _) => {
            Some("the host has no /dev/iommu".to_owned())
        }
        (_, Some(device)) => Some(format!("{} has no node in /dev/vfio/devices", device.pci())),
        (_, None) => None,
    };
    match wanted {
        Some(kind) => {
            if let (BackendKind::Iommufd, Some(missing)) = (kind, missing) {
                let message = format!("{missing}: its kernel offers no iommufd for devices");
                let help = "leave `dma-backend` out: type1 does the same";
                let finding = Diagnostic::error(Code::IommufdMissing, message);
                findings.push(finding.on(Place::Vm("dma-backend")).with_help(help));
            }
            kind
        }
        None if missing.is_none() && vfio.is_some() => BackendKind::Iommufd,
        None => BackendKind::Type1,
    }
}

/// Whether a guest can ask for more mappings than a type1 container takes: one that shares, or maps,
/// each page by itself needs one for each.
pub(super) fn entries(case: &Case<'_>, facts: &HostFacts) -> Option<Diagnostic> {
    let limit = facts.vfio.as_ref()?.dma_entry_limit?;
    let changing = case.platform.is_confidential() || case.iommu.is_some();
    let most = case.memory / PAGE;
    if case.backend != BackendKind::Type1 || !changing || case.assigned.is_empty() || most <= limit
    {
        return None;
    }
    let (what, then) = match case.platform.is_confidential() {
        true => ("shares each page of its memory", "conversions"),
        false => ("maps each page of its memory", "requests to its IOMMU"),
    };
    let message = format!(
        "a guest that {what} by itself takes {most} DMA mappings for a device, and the host allows \
         {limit}: further {then} would be refused"
    );
    let help = format!(
        "echo {most} >/sys/module/vfio_iommu_type1/parameters/dma_entry_limit allows as many; \
         iommufd has no such limit"
    );
    let finding = Diagnostic::warning(Code::DmaEntriesMayRunOut, message);
    Some(finding.on(Place::Vm("memory")).with_help(help))
}
