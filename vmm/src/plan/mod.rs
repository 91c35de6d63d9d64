//! The plan: one placement of everything in guest-physical space, such that every assigned device
//! reaches every address that it will be told to use.
//!
//! Pure and deterministic: the same config and the same facts give the same plan, byte for byte.
//!
//! ```text
//! shared alias in the top bit                        in place
//!
//! 2^w      ┌───────────────┐ ◄ no device's reach     2^w ┌───────────────┐
//!          │               │   and no aperture ends      │ PCI, platform │
//!          │ shared alias  │   below this                │ (not DMA)     │
//!          │ of all below  │                             │---------------│ ◄ no strict device's reach
//! 2^(w-1)  ├───────────────┤                             │ DRAM          │   ends below the last DRAM
//!          │ 64-bit window │                             │ ░░░░░░░░░░░░░ │   reserved IOVAs: no DRAM
//!          │ DRAM          │                             │ DRAM          │
//!          │ platform, PCI │                             │ platform, PCI │
//! 0        └───────────────┘                           0 └───────────────┘
//! ```
//!
//! The smallest `w` that holds the layout is the choice. For each `w` a *roomy* layout with customary
//! addresses comes first, then the *compact* one that leaves the most DRAM (`pack`).

mod assigned;
mod bounds;
mod case;
mod choice;
mod layout;
mod machine;
mod outcome;
mod pack;
mod refusal;
mod span;
mod table;
mod width;
mod windows;

use devices::pci::Bdf;
use iommu::{Gpa, PageRange};

pub use outcome::{DeviceReach, DmaWidth, Outcome, PlanOptions, Verdict, WidthSource};

use crate::config::spec::{DeviceSpec, DmaMode, VmSpec};
use crate::diagnostic::{Diagnostic, Severity};
use crate::host::facts::{DeviceFacts, HostFacts, PciAddress};
use crate::platform::{Platform, SharedAlias};
use assigned::Assigned;
use bounds::reach_of;
use case::{Case, Room};
use layout::Layout;
use span::Span;

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
    let assigned = assigned::resolve(spec, facts, &mut findings);
    let rule = choice::dma_rule(spec, platform, &assigned, &mut findings);
    let widths = choice::widths(facts, options, &mut findings);
    let case = Case {
        arch: facts.arch,
        vcpus: spec.vcpus,
        memory: spec.memory,
        platform,
        rule,
        forced: options.override_ipa_bits.is_some(),
        widths,
        machine: case::machine(facts.arch, spec.vcpus, &assigned),
        assigned,
    };
    let hopeless = findings.iter().any(is_error);
    let bounds = case.together();
    let room = case.room(&bounds);
    let solution = case.solve(&bounds);
    match &solution {
        Some(layout) => findings.extend(warnings(&case, layout)),
        None if case.widths.is_empty() => {}
        None => findings.extend(refusal::refuse(&case, &room)),
    }
    let accepted = solution.as_ref().filter(|_| !hopeless);
    let verdict = accepted.and_then(|layout| VmPlan::new(&case, layout));
    let layout = solution
        .as_ref()
        .cloned()
        .or_else(|| refusal::unbounded(&case));
    Outcome {
        verdict: verdict.map_or(Verdict::Rejected, Verdict::Accepted),
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
        let end = reach_of(device.width.bits).min(device.bounds.aperture_end);
        end.saturating_sub(1)
    }
}

/// A placement for which the DMA rule holds. Having one is the proof: only the planner makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPlan {
    platform: Platform,
    ipa_bits: u8,
    vcpus: u32,
    dram: Vec<PageRange<Gpa>>,
    mmio: Option<MmioLayout>,
    pci_windows: Vec<PciWindow>,
    devices: Vec<PlannedDevice>,
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
    /// PCI configuration space of bus 0, 1 MiB.
    pub ecam: PageRange<Gpa>,
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
    fn new(case: &Case<'_>, layout: &Layout) -> Option<Self> {
        let pages =
            |span: &Span| PageRange::from_bounds(Gpa::new(span.start), Gpa::new(span.end)).ok();
        let arm = case.machine.mmio(layout.platform);
        let window = |span: Option<Span>, kind| {
            let range = pages(&span?)?;
            Some(PciWindow { range, kind })
        };
        let windows = [
            arm.and_then(|(_, io)| io),
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
        Some(Self {
            platform: case.platform,
            ipa_bits: layout.width,
            vcpus: case.vcpus,
            dram: layout.dram.iter().map(pages).collect::<Option<_>>()?,
            mmio: arm.map(|(mmio, _)| mmio),
            pci_windows: windows.into_iter().flatten().collect(),
            devices: case.assigned.iter().map(planned).collect(),
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

    /// How many vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// DRAM, ascending, disjoint, each start and length a multiple of 2 MiB.
    #[must_use]
    pub fn dram(&self) -> &[PageRange<Gpa>] {
        &self.dram
    }

    /// The platform's own devices; only an Arm VM has them.
    #[must_use]
    pub fn mmio(&self) -> Option<&MmioLayout> {
        self.mmio.as_ref()
    }

    /// The PCI windows.
    #[must_use]
    pub fn pci_windows(&self) -> &[PciWindow] {
        &self.pci_windows
    }

    /// The assigned devices, in the order of the config.
    #[must_use]
    pub fn devices(&self) -> &[PlannedDevice] {
        &self.devices
    }
}

#[cfg(test)]
mod tests;
