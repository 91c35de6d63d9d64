//! Whether a device can come to a VM that runs: only if the plan as it is holds with it.
//!
//! ```text
//!   config, facts then ─► plan ─► VmPlan, with the frame that it was made in
//!                                   │
//!   device, facts now ──────────────┴─► admit ─► PlannedDevice, or the planner's reasons
//! ```
//! Nothing moves any more: the width of the space, DRAM and windows are what the guest was told. So the
//! device is held against them, by the same rule and with the same words as before a launch.

use vfio::BackendKind;

use super::assigned::{self, Assigned};
use super::case::Case;
use super::layout::Layout;
use super::machine::Machine;
use super::ports::{PlannedPort, Ports};
use super::windows::BarRooms;
use super::{
    PlannedDevice, VmPlan, accepted, backend, highest_dma_address, is_error, refusal, warnings,
};
use crate::config::Size;
use crate::config::spec::{DeviceSpec, DmaRule};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::host::facts::{Arch, HostFacts};

/// What a plan was made in, and what of that counts when a device comes later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    arch: Arch,
    rule: DmaRule,
    /// Whether the width of the space was forced.
    forced: bool,
    layout: Layout,
    /// What the config says of it.
    backend: Option<BackendKind>,
    /// Memory for the BARs of the device in a slot, in bytes.
    pub(super) window: u64,
}

impl Frame {
    pub(super) fn new(case: &Case<'_>, layout: &Layout, backend: Option<BackendKind>) -> Self {
        Self {
            arch: case.arch,
            rule: case.rule,
            forced: case.forced,
            layout: layout.clone(),
            backend,
            window: case.ports.window,
        }
    }
}

/// A device that the plan holds with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its place and its reach.
    pub device: PlannedDevice,
    /// What makes its DMA table.
    pub backend: BackendKind,
    /// What the operator should know.
    pub warnings: Vec<Diagnostic>,
}

impl VmPlan {
    /// Whether the plan holds with `wanted` in the slot of `port`, by what the host is now.
    ///
    /// # Errors
    /// Everything that stands in the way, as `ccvm check` would say it.
    pub fn admit(
        &self,
        wanted: &DeviceSpec,
        port: &PlannedPort,
        facts: &HostFacts,
    ) -> Result<Admitted, Vec<Diagnostic>> {
        let frame = &self.frame;
        let mut findings = Vec::new();
        let wanted = std::slice::from_ref(wanted);
        let assigned = assigned::resolve(wanted, facts, &mut findings);
        let backend = backend::choose(frame.backend, facts, &assigned, &mut findings);
        let case = Case {
            arch: frame.arch,
            vcpus: self.vcpus(),
            memory: self.memory(),
            platform: self.platform(),
            rule: frame.rule,
            backend,
            forced: frame.forced,
            widths: vec![self.ipa_bits()],
            machine: Machine::new(frame.arch, self.vcpus(), &BarRooms::default()),
            iommu: None,
            functions: Vec::new(),
            ports: Ports::default(),
            assigned,
        };
        let layout = &frame.layout;
        if let Some(device) = case.assigned.first() {
            findings.extend(beyond_reach(&case, device, layout));
            findings.extend(too_large(device, frame.window));
        }
        if !findings.iter().any(is_error) {
            findings.extend(warnings(&case, layout));
            findings.extend(accepted::warnings(&case, layout));
            findings.extend(backend::entries(&case, facts));
        }
        // The config that a place would be in has no such device.
        for finding in &mut findings {
            finding.place = None;
        }
        match case.assigned.first() {
            Some(device) if !findings.iter().any(is_error) => Ok(Admitted {
                device: PlannedDevice {
                    pci: device.pci(),
                    guest: port.card,
                    dma_bits: device.width.bits,
                    dma_bits_source: device.width.source,
                    dma: device.spec.dma,
                    highest_dma_address: highest_dma_address(&case, device, layout),
                },
                backend,
                warnings: findings,
            }),
            _ => Err(findings),
        }
    }
}

/// What of guest memory the device does not reach where the rule says that it must.
fn beyond_reach(case: &Case<'_>, device: &Assigned<'_>, layout: &Layout) -> Vec<Diagnostic> {
    let demands = case.demands(device);
    let reached = demands.dram(layout.width, case.alias(), super::case::GRANULE);
    let all = reached.is_some_and(|reached| {
        let mut dram = layout.dram.iter();
        dram.all(|span| reached.bytes_in(*span) == span.bytes())
    });
    if all {
        return Vec::new();
    }
    let mut reasons = refusal::shortfalls(case, device, demands.bits, layout, Severity::Error);
    if reasons.is_empty() {
        let message = format!(
            "the IOMMU of {} reserves addresses where this VM has its memory",
            device.pci()
        );
        let finding = Diagnostic::error(Code::ReservedRangesTooLarge, message);
        reasons.push(finding.about(device.pci()));
    }
    let help =
        "memory cannot move while the VM runs: a VM that starts with the device is planned for it";
    let with_help = |reason: Diagnostic| reason.with_help(help);
    reasons.into_iter().map(with_help).collect()
}

/// Whether the device's BARs need more than a slot has.
fn too_large(device: &Assigned<'_>, window: u64) -> Option<Diagnostic> {
    let needed = BarRooms::of(&device.facts.bars).behind_a_bridge();
    let wanted = Size(needed.next_multiple_of(2 << 20));
    (needed > window).then(|| {
        let message = format!(
            "the BARs of {} need {wanted}, and a slot of this VM has {}",
            device.pci(),
            Size(window)
        );
        let help = format!("start the VM with `hotplug-window = \"{wanted}\"`, or with the device");
        let finding = Diagnostic::error(Code::SlotTooSmall, message);
        finding.about(device.pci()).with_help(help)
    })
}
