//! The plan: one placement of everything in guest-physical space, such that every assigned device
//! reaches every address that it will be told to use.
//!
//! Pure and deterministic: the same config and the same facts give the same plan, byte for byte.
//!
//! ```text
//!      alias in the top bit                               alias in place
//!
//! 2^w      ┌───────────────────┐ within every        2^w  ┌───────────────────┐
//!          │ shared pages,     │ device's DMA width       │ 64-bit BARs       │
//!          │ as DMA names them │ and IOMMU aperture       ├───────────────────┤ within every width
//! 2^(w-1)  ├───────────────────┤                          │ DRAM              │ (strict) and every
//!          │ 64-bit BARs       │                          │░░░░░░░░░░░░░░░░░░░│ aperture
//!          │ DRAM              │                          │ DRAM              │
//!          │ platform, BARs    │                          │ platform, BARs    │
//! 0        └───────────────────┘                     0    └───────────────────┘
//!
//!          ░ no DRAM where its DMA address is reserved
//! ```
//!
//! The smallest `w` that holds the layout is the choice. For each `w` a *roomy* layout with customary
//! addresses comes first, then the *compact* one that leaves the most DRAM (`pack`).

mod accepted;
mod admission;
mod assigned;
mod backend;
mod bounds;
mod case;
mod choice;
mod emulated;
mod isolation;
mod layout;
mod machine;
mod outcome;
mod pack;
mod ports;
mod refusal;
mod span;
mod table;
mod virtual_iommu;
mod vm_plan;
mod width;
mod windows;

pub use admission::Admitted;
pub use emulated::{Emulated, PlannedFunction};
pub use outcome::{DeviceReach, DmaWidth, Outcome, PlanOptions, Verdict, WidthSource};
pub use ports::PlannedPort;
pub use virtual_iommu::{PlannedIommu, Unattached};
pub use vm_plan::{
    Board, MmioLayout, PcLayout, PciWindow, PciWindowKind, PlannedDevice, VmPlan, last_bus,
};

use crate::config::spec::{DeviceSpec, DmaMode, VmSpec};
use crate::diagnostic::{Diagnostic, Severity};
use crate::host::facts::{DeviceFacts, HostFacts, PciAddress};
use crate::platform::SharedAlias;
use assigned::Assigned;
use bounds::reach_of;
use case::{Case, Room};
use layout::Layout;

/// How many address bits a device drives by its facts alone, for want of a config.
#[must_use]
pub fn dma_width(facts: &DeviceFacts) -> DmaWidth {
    let unasked = DeviceSpec {
        pci: facts.pci,
        dma_bits: None,
        dma: DmaMode::Direct,
    };
    // A width that no device has is a finding where a VM is planned; elsewhere it is no knowledge.
    width::width(&unasked, facts).unwrap_or_else(|_| DmaWidth::assumed())
}

/// Places the VM of `spec` on the host of `facts`, or says everything that stands in the way.
#[must_use]
pub fn plan(spec: &VmSpec, facts: &HostFacts, options: PlanOptions) -> Outcome {
    let (mut notes, mut findings) = (Vec::new(), Vec::new());
    let platform = choice::platform(spec, facts, &mut notes, &mut findings);
    choice::vcpus(spec, facts.arch, &mut findings);
    let assigned = assigned::resolve(&spec.devices, facts, &mut findings);
    notes.extend(choice::note_on_devices(platform, &assigned));
    let rule = choice::dma_rule(spec, platform, &assigned, &mut findings);
    isolation::check(spec, platform, &assigned, &mut findings);
    let iommu = virtual_iommu::place(spec, &assigned, &mut findings);
    let taken = assigned.len() + usize::from(iommu.is_some());
    let functions = emulated::place(spec, platform, taken, &mut findings);
    let ports = ports::place(
        spec,
        platform,
        taken + functions.len(),
        iommu,
        &mut findings,
    );
    notes.extend(ports.note());
    let backend = backend::choose(spec.dma_backend, facts, &assigned, &mut findings);
    let widths = choice::widths(platform, facts, options, &mut findings);
    let case = Case {
        arch: facts.arch,
        vcpus: spec.vcpus,
        memory: spec.memory,
        platform,
        rule,
        backend,
        forced: options.override_ipa_bits.is_some(),
        widths,
        machine: case::machine(
            facts.arch,
            spec.vcpus,
            &assigned,
            (case::virtio_functions(iommu, &functions), &ports),
        ),
        iommu,
        functions,
        ports,
        assigned,
    };
    let hopeless = findings.iter().any(is_error);
    let bounds = case.together();
    let room = case.room(&bounds);
    let solution = case.solve(&bounds);
    match &solution {
        Some(layout) => {
            findings.extend(warnings(&case, layout));
            findings.extend(accepted::warnings(&case, layout));
            findings.extend(backend::entries(&case, facts));
        }
        None if case.widths.is_empty() => {}
        None => findings.extend(refusal::refuse(&case, &room)),
    }
    let accepted = solution.as_ref().filter(|_| !hopeless);
    let verdict = accepted.and_then(|layout| VmPlan::new(&case, layout, spec.dma_backend));
    let layout = solution
        .as_ref()
        .cloned()
        .or_else(|| refusal::unbounded(&case));
    Outcome {
        verdict: verdict.map_or(Verdict::Rejected, |plan| Verdict::Accepted(Box::new(plan))),
        platform,
        ipa_bits: layout.as_ref().map(|layout| layout.width),
        max_memory: if hopeless { 0 } else { room.together },
        limited_by: limiting(&case, &room),
        devices: reaches(&case, layout.as_ref(), &room),
        notes,
        diagnostics: findings,
    }
}

fn is_error(finding: &Diagnostic) -> bool {
    finding.severity == Severity::Error
}

/// What the operator should know of an accepted layout.
fn warnings(case: &Case<'_>, layout: &Layout) -> Vec<Diagnostic> {
    match case.alias() {
        SharedAlias::InPlace => refusal::bounces(case, layout),
        SharedAlias::TopBit => case
            .direct()
            .flat_map(|device| {
                refusal::shortfalls(case, device, device.width.bits, layout, Severity::Warning)
            })
            .collect(),
    }
}

/// The device that allows the least memory, if that is less than without devices.
fn limiting(case: &Case<'_>, room: &Room) -> Option<PciAddress> {
    let least = case
        .direct()
        .min_by_key(|device| (room.alone(device), device.width.bits))?;
    (room.alone(least) < room.without_devices).then(|| least.pci())
}

fn reaches(case: &Case<'_>, layout: Option<&Layout>, room: &Room) -> Vec<DeviceReach> {
    let reach = |device: &Assigned<'_>| {
        let highest = layout.map(|layout| highest_dma_address(case, device, layout));
        let within = highest.is_some_and(|highest| highest < reach_of(device.width.bits));
        // On a host without KVM nothing has room, and no device is to blame.
        let refused = room.alone(device) < case.memory.min(room.without_devices);
        DeviceReach {
            pci: device.pci(),
            width: device.width.clone(),
            highest_dma_address: highest,
            reachable: within && !refused,
        }
    };
    case.assigned.iter().map(reach).collect()
}

fn highest_dma_address(case: &Case<'_>, device: &Assigned<'_>, layout: &Layout) -> u64 {
    if device.is_direct() || case.platform.is_confidential() {
        layout.highest_dma_address(case.alias())
    } else {
        virtual_iommu::input_end(&case.assigned).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests;
