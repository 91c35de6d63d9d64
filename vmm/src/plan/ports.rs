//! Slots for devices that come while the VM runs: root ports on bus 0, each with a bus of its own.

use devices::pci::Bdf;

use super::assigned::slots;
use crate::config::Size;
use crate::config::spec::VmSpec;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::platform::Platform;

/// A root port with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedPort {
    /// The number of its slot, from 1 on.
    pub number: u8,
    /// Where the guest sees the port.
    pub guest: Bdf,
    /// Where the guest sees the device in its slot.
    pub card: Bdf,
}

/// The slots of a VM.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    pub(super) list: Vec<PlannedPort>,
    /// Memory for the BARs of the device in each of them, in bytes.
    pub(super) window: u64,
}

impl Ports {
    pub(super) fn count(&self) -> u8 {
        u8::try_from(self.list.len()).unwrap_or(u8::MAX)
    }

    /// What an operator should know of them.
    pub(super) fn note(&self) -> Option<String> {
        let first = self.list.first()?;
        let count = self.count();
        let window = Size(self.window);
        Some(format!(
            "{count} slots for devices that come later, behind ports from {} on, each with {window} for BARs",
            first.guest
        ))
    }
}

/// Places the slots of a config, behind the first `taken` functions.
pub(super) fn place(
    spec: &VmSpec,
    platform: Platform,
    taken: usize,
    iommu: Option<Bdf>,
    findings: &mut Vec<Diagnostic>,
) -> Ports {
    let wanted = spec.hotplug;
    if wanted.ports == 0 {
        return Ports::default();
    }
    let mut refuse = |code, message: String, help: &str| {
        let finding = Diagnostic::error(code, message).on(Place::Vm("hotplug-ports"));
        findings.push(finding.with_help(help));
    };
    if let Some(why) = obstacle(platform, iommu) {
        let message = format!("no device can come later: {why}");
        refuse(Code::NoSlots, message, "leave `hotplug-ports` out");
    }
    let mut places = slots().skip(taken);
    let mut list = Vec::new();
    for number in 1..=wanted.ports {
        // A port's bus has the number of its slot, as Linux would number it.
        let card = Bdf::new(number, 0, 0);
        match places.next().zip(card) {
            Some((guest, card)) => list.push(PlannedPort {
                number,
                guest,
                card,
            }),
            None => {
                let message = "no slot of the guest's PCI bus is left for a hot-plug port";
                let help = "leave emulated or assigned devices out, or have fewer ports";
                refuse(Code::TooManyDevices, message.to_owned(), help);
                break;
            }
        }
    }
    Ports {
        list,
        window: wanted.window,
    }
}

/// Why the VM cannot have slots, if it cannot.
fn obstacle(platform: Platform, iommu: Option<Bdf>) -> Option<String> {
    if iommu.is_some() {
        // Its endpoints are told to the guest once, when it starts.
        return Some("the guest is told once, when it starts, what is behind its IOMMU".to_owned());
    }
    match platform {
        Platform::None | Platform::EmulatedRealm => None,
        Platform::Cca | Platform::Pkvm | Platform::SwProtected | Platform::Snp | Platform::Tdx => {
            Some(format!("this ccvm has not tried that on '{platform}'"))
        }
    }
}
