//! From what a check found to the report document.

use std::collections::BTreeSet;

use devices::pci::Bdf;
use iommu::{Gpa, PageRange};

use super::document::{
    DeviceReport, Dma, EmulatedKind, EmulatedReport, Finding, FindingSeverity, IommuReport,
    MemoryRange, Region, RegionKind, Report, SCHEMA, Unattached, Verdict,
};
use crate::check::{Check, FileFindings, Judgement};
use crate::config::spec::{DaemonKind, DeviceSpec, DmaMode};
use crate::diagnostic::{Diagnostic, Severity};
use crate::host::HostFacts;
use crate::host::facts::Hex;
use crate::plan::{
    self, Board, DeviceReach, Emulated, Outcome, PciWindowKind, PlannedFunction, PlannedIommu,
    VmPlan,
};

impl Report {
    /// The report of a check. `facts` give the devices their ids.
    #[must_use]
    pub fn new(check: &Check, facts: Option<&HostFacts>) -> Self {
        let outcome = check.outcome.as_ref();
        let plan = outcome.and_then(Outcome::plan);
        let specs = check.spec.as_ref().map_or(&[][..], |spec| &spec.devices);
        Self {
            schema: SCHEMA,
            verdict: match check.judgement() {
                Judgement::Accepted => Verdict::Accepted,
                Judgement::Rejected | Judgement::Unusable => Verdict::Rejected,
            },
            platform: outcome.map(|outcome| outcome.platform),
            ipa_bits: outcome.and_then(|outcome| outcome.ipa_bits),
            shared_bit: plan.and_then(VmPlan::shared_bit),
            memory: plan.map_or_else(Vec::new, |plan| memory(plan.dram())),
            max_memory: outcome.map(|outcome| outcome.max_memory),
            limited_by: outcome.and_then(|outcome| outcome.limited_by),
            devices: outcome.map_or_else(Vec::new, |outcome| {
                let reaches = outcome.devices.iter();
                reaches
                    .map(|reach| device(reach, specs, plan, facts))
                    .collect()
            }),
            iommu: plan.and_then(VmPlan::iommu).map(iommu),
            emulated: plan.map_or_else(Vec::new, |plan| {
                plan.functions().iter().map(emulated).collect()
            }),
            layout: plan.map_or_else(Vec::new, |plan| with_reserved(layout(plan), plan, facts)),
            notes: outcome.map_or_else(Vec::new, |outcome| outcome.notes.clone()),
            diagnostics: check.findings.iter().flat_map(Finding::all_of).collect(),
        }
    }
}

fn memory(dram: &[PageRange<Gpa>]) -> Vec<MemoryRange> {
    let range = |range: &PageRange<Gpa>| MemoryRange {
        start: Hex(range.start().raw()),
        size: range.bytes(),
    };
    dram.iter().map(range).collect()
}

fn device(
    reach: &DeviceReach,
    specs: &[DeviceSpec],
    plan: Option<&VmPlan>,
    facts: Option<&HostFacts>,
) -> DeviceReport {
    let spec = specs.iter().find(|spec| spec.pci == reach.pci);
    let planned = plan.map_or(&[][..], VmPlan::devices);
    let planned = planned.iter().find(|planned| planned.pci == reach.pci);
    let known = facts.map_or(&[][..], |facts| &facts.devices);
    let known = known.iter().find(|known| known.pci == reach.pci);
    DeviceReport {
        pci: reach.pci,
        guest: planned.map(|planned: &plan::PlannedDevice| Bdf::to_string(&planned.guest)),
        vendor: known.map(|known| known.vendor),
        device: known.map(|known| known.device),
        dma: match spec.map(|spec| spec.dma) {
            Some(DmaMode::Translated) => Dma::Translated,
            Some(DmaMode::Direct) | None => Dma::Direct,
        },
        dma_bits: reach.width.bits,
        dma_bits_source: reach.width.source,
        dma_bits_origin: reach.width.origin.map(str::to_owned),
        highest_dma_address: reach.highest_dma_address.map(Hex),
        reachable: reach.reachable,
    }
}

fn iommu(planned: &PlannedIommu) -> IommuReport {
    IommuReport {
        guest: planned.guest.to_string(),
        highest_address: Hex(planned.input.end().raw().saturating_sub(1)),
        unattached: match planned.unattached {
            plan::Unattached::Bypass => Unattached::Bypass,
            plan::Unattached::Blocked => Unattached::Blocked,
        },
    }
}

fn emulated(planned: &PlannedFunction) -> EmulatedReport {
    let (kind, source) = match &planned.device {
        Emulated::Disk(disk) => (EmulatedKind::Disk, disk.path.display().to_string()),
        Emulated::Net(net) => (EmulatedKind::Net, net.source.to_string()),
        Emulated::Daemon(daemon) => {
            let kind = match daemon.kind {
                DaemonKind::Block { .. } => EmulatedKind::VhostUserBlock,
                DaemonKind::Net { .. } => EmulatedKind::VhostUserNet,
                DaemonKind::Fs { .. } => EmulatedKind::VhostUserFs,
            };
            (kind, daemon.socket.display().to_string())
        }
        Emulated::Vsock(vsock) => (EmulatedKind::Vsock, format!("context id {}", vsock.cid)),
        Emulated::Rng => (EmulatedKind::Rng, String::new()),
        Emulated::Console => (EmulatedKind::Console, String::new()),
    };
    EmulatedReport {
        guest: planned.guest.to_string(),
        kind,
        source,
    }
}

/// Everything of the plan that has an address, ascending.
fn layout(plan: &VmPlan) -> Vec<Region> {
    let region = |range: PageRange<Gpa>, kind| Region {
        start: Hex(range.start().raw()),
        size: range.bytes(),
        kind,
    };
    let dram = plan.dram().iter();
    let mut regions: Vec<Region> = dram
        .map(|range| region(*range, RegionKind::Memory))
        .collect();
    regions.push(region(plan.board().ecam(), RegionKind::PciConfig));
    if let Board::Arm(mmio) = plan.board() {
        regions.extend([
            region(mmio.gic_distributor, RegionKind::GicDistributor),
            region(mmio.gic_its, RegionKind::GicIts),
            region(mmio.gic_redistributors, RegionKind::GicRedistributors),
            region(mmio.serial, RegionKind::Serial),
            region(mmio.rtc, RegionKind::Rtc),
            region(mmio.gpio, RegionKind::Gpio),
        ]);
    }
    regions.extend(plan.pci_windows().iter().map(|window| {
        let kind = match window.kind {
            PciWindowKind::Io => RegionKind::PciIo,
            PciWindowKind::Mem32 => RegionKind::PciMem32,
            PciWindowKind::Mem64 => RegionKind::PciMem64,
        };
        region(window.range, kind)
    }));
    regions.sort_by_key(|region| region.start);
    regions
}

/// Adds the reserved addresses of the assigned devices where nothing else is.
fn with_reserved(mut layout: Vec<Region>, plan: &VmPlan, facts: Option<&HostFacts>) -> Vec<Region> {
    let known = facts.map_or(&[][..], |facts| &facts.devices);
    let assigned = |pci| plan.devices().iter().any(|device| device.pci == pci);
    let devices = known.iter().filter(|known| assigned(known.pci));
    let alias = plan.shared_bit().map_or(0, |bit| 1_u64 << bit);
    let space = (1_u64 << plan.ipa_bits()) - alias;
    let reserved = devices.flat_map(|device| &device.reserved_regions);
    let reserved = reserved.filter_map(|region| {
        // Shared pages have their DMA addresses in the upper half.
        let start = region.start.0.checked_sub(alias)?;
        let last = region.end.0.checked_sub(alias)?;
        (last < space).then_some((start, last))
    });
    for (start, last) in reserved.collect::<BTreeSet<_>>() {
        let apart =
            |other: &Region| last < other.start.0 || other.start.0 + (other.size - 1) < start;
        if layout.iter().all(apart) {
            layout.push(Region {
                start: Hex(start),
                size: last - start + 1,
                kind: RegionKind::Reserved,
            });
        }
    }
    layout.sort_by_key(|region| region.start);
    layout
}

impl Finding {
    /// What there is to say of a file.
    pub fn all_of(file: &FileFindings) -> impl Iterator<Item = Self> + '_ {
        let finding = |diagnostic: &Diagnostic| {
            let span = diagnostic.span.as_ref();
            let position = file
                .source
                .as_ref()
                .zip(span)
                .map(|(source, span)| source.position(span.start));
            Self {
                code: diagnostic.code.to_string(),
                severity: match diagnostic.severity {
                    Severity::Error => FindingSeverity::Error,
                    Severity::Warning => FindingSeverity::Warning,
                },
                message: diagnostic.message.clone(),
                help: diagnostic.help.clone(),
                device: diagnostic.device,
                file: file.source.as_ref().map(|source| source.name().to_owned()),
                line: position.map(|position| position.line),
                column: position.map(|position| position.column),
            }
        };
        file.diagnostics.iter().map(finding)
    }
}
