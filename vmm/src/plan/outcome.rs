//! What planning found out, accepted or not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VmPlan;
use crate::diagnostic::{Diagnostic, Severity};
use crate::host::facts::PciAddress;
use crate::platform::Platform;

/// What a caller may ask of the planner beyond config and facts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// For experiments: this width of the guest-physical space, whatever the devices reach.
    pub override_ipa_bits: Option<u8>,
}

/// Whether the VM can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is a placement for which the rule holds.
    Accepted(Box<VmPlan>),
    /// There is none, or something else is wrong; the diagnostics say what.
    Rejected,
}

/// Everything that planning found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the VM can be, with its plan.
    pub verdict: Verdict,
    /// The kind of VM: as asked for, or as chosen for `auto`.
    pub platform: Platform,
    /// Width of the guest-physical space that the VM has, or would need; `None` when no width does.
    pub ipa_bits: Option<u8>,
    /// The largest `[vm] memory` in bytes that would be accepted for this config on this host; 0
    /// when no memory size would be.
    pub max_memory: u64,
    /// The device that sets [`Outcome::max_memory`], where a device does.
    pub limited_by: Option<PciAddress>,
    /// The assigned devices that the host has, in the order of the config.
    pub devices: Vec<DeviceReach>,
    /// How choices were made, one sentence each.
    pub notes: Vec<String>,
    /// Errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

impl Outcome {
    /// The plan of an accepted VM.
    #[must_use]
    pub fn plan(&self) -> Option<&VmPlan> {
        match &self.verdict {
            Verdict::Accepted(plan) => Some(plan),
            Verdict::Rejected => None,
        }
    }

    /// Whether something forbids the VM.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        let mut severities = self.diagnostics.iter().map(|finding| finding.severity);
        severities.any(|severity| severity == Severity::Error)
    }
}

/// What an assigned device reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReach {
    /// The host function.
    pub pci: PciAddress,
    /// How many address bits it drives, and who says so.
    pub width: DmaWidth,
    /// The highest address that it is or would be told to use, inclusive; `None` when the VM fits
    /// nowhere.
    pub highest_dma_address: Option<u64>,
    /// Whether it reaches all that it is or would be told to use.
    pub reachable: bool,
}

/// How many address bits a device drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmaWidth {
    /// Address bits: the smaller of what it drives for streaming and for coherent DMA.
    pub bits: u8,
    /// Who says so.
    pub source: WidthSource,
    /// Where the device table has it from, when that is the source.
    pub origin: Option<&'static str>,
    /// What other, less trusted sources say.
    pub others: Vec<(WidthSource, u8)>,
}

impl DmaWidth {
    /// The width of a device of which nothing is known: the kernel's own assumption.
    #[must_use]
    pub const fn assumed() -> Self {
        Self {
            bits: 32,
            source: WidthSource::Assumed,
            origin: None,
            others: Vec::new(),
        }
    }
}

/// What the width of a device is known from, best first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum WidthSource {
    /// `dma-bits` of the config.
    Override,
    /// TDISP `DEV_ADDR_WIDTH`.
    Tdisp,
    /// The device table, by PCI id.
    Table,
    /// A register of the device.
    Register,
    /// The masks that the last driver set.
    Sysfs,
    /// Nothing: 32 bits are assumed.
    Assumed,
}

impl WidthSource {
    /// The source's name in texts and in the report document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Tdisp => "tdisp",
            Self::Table => "table",
            Self::Register => "register",
            Self::Sysfs => "sysfs",
            Self::Assumed => "assumed",
        }
    }
}
