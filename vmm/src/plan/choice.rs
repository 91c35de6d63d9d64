//! Which kind of VM: as the config says, or the best that the host offers.

use crate::config::spec::{DmaRule, VmSpec};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::host::facts::{Arch, HostFacts};
use crate::platform::{Platform, SharedAlias};

use super::assigned::Assigned;
use super::bounds::WIDEST;
use super::outcome::PlanOptions;

/// The narrowest guest-physical space that KVM and the RMM make on Arm.
pub(super) const NARROWEST: u8 = 32;

/// Confidential platforms that `auto` considers, the strongest first. An emulated one is not
/// confidential, and never chosen unasked.
const BY_STRENGTH: [Platform; 5] = [
    Platform::Cca,
    Platform::Snp,
    Platform::Tdx,
    Platform::Pkvm,
    Platform::SwProtected,
];

/// Whether this ccvm launches such a VM; others it only plans.
pub(super) fn launches(platform: Platform, arch: Arch) -> bool {
    let launched = matches!(platform, Platform::None | Platform::EmulatedRealm);
    launched && arch == Arch::Aarch64
}

/// The kind of VM, with notes on how it was chosen and findings on why it cannot be.
pub(super) fn platform(
    spec: &VmSpec,
    facts: &HostFacts,
    notes: &mut Vec<String>,
    findings: &mut Vec<Diagnostic>,
) -> Platform {
    let offered = facts.kvm.as_ref().map_or(&[][..], |kvm| &kvm.platforms);
    let Some(wanted) = spec.platform else {
        let (best, note) = automatic(facts.arch, offered);
        notes.push(note);
        return best;
    };
    if facts.kvm.is_some() && !offered.contains(&wanted) {
        let message = format!("the host does not offer the platform '{wanted}'");
        let help = if offered.is_empty() {
            "the host offers no platform".to_owned()
        } else {
            let names: Vec<String> = offered.iter().map(ToString::to_string).collect();
            format!("the host offers: {}", names.join(", "))
        };
        let finding = Diagnostic::error(Code::PlatformNotOffered, message);
        findings.push(finding.on(Place::Vm("platform")).with_help(help));
    } else if !launches(wanted, facts.arch) {
        let message = format!(
            "this ccvm plans '{wanted}' VMs on this kind of host, but does not launch them"
        );
        let finding = Diagnostic::warning(Code::PlatformNotLaunched, message);
        findings.push(finding.on(Place::Vm("platform")));
    }
    wanted
}

fn automatic(arch: Arch, offered: &[Platform]) -> (Platform, String) {
    let confidential = BY_STRENGTH.into_iter().filter(|p| offered.contains(p));
    let best = confidential.clone().find(|p| launches(*p, arch));
    if let Some(best) = best {
        let note = format!("platform '{best}' is the strongest that the host offers");
        return (best, note);
    }
    let passed_over: Vec<String> = confidential.map(|p| p.to_string()).collect();
    let reason = if passed_over.is_empty() {
        "the host offers no confidential platform".to_owned()
    } else {
        let names = passed_over.join(", ");
        format!("the host offers {names}, which this ccvm does not launch")
    };
    (
        Platform::None,
        format!("platform 'none' was chosen: {reason}"),
    )
}

/// The widths that the guest-physical space may have, ascending; none when the host's limit is not
/// known.
pub(super) fn widths(
    facts: &HostFacts,
    options: PlanOptions,
    findings: &mut Vec<Diagnostic>,
) -> Vec<u8> {
    let limit = match (facts.arch, &facts.kvm) {
        (_, None) => None,
        (Arch::Aarch64, Some(kvm)) => kvm.ipa_bits_max,
        (Arch::X86_64, Some(kvm)) => kvm.phys_bits,
    };
    let Some(limit) = limit
        .map(|bits| bits.min(WIDEST))
        .filter(|bits| *bits >= NARROWEST)
    else {
        let why_not = facts.unknown.iter().find(|fact| fact.starts_with("KVM: "));
        let message = match (&facts.kvm, why_not) {
            (Some(_), _) => {
                "how wide a guest-physical space KVM offers is not known, or under 32 bits"
            }
            (None, Some(why)) => &format!("the host offers no {why}"),
            (None, None) => "the host has no KVM, or it could not be asked",
        };
        let help = "load the kvm module, and give yourself access to /dev/kvm (group kvm)";
        findings.push(Diagnostic::error(Code::NoKvm, message).with_help(help));
        return Vec::new();
    };
    let offered: Vec<u8> = match facts.arch {
        Arch::Aarch64 => (NARROWEST..=limit).collect(),
        // The processor's own width: not for a VMM to choose.
        Arch::X86_64 => vec![limit],
    };
    let Some(bits) = options.override_ipa_bits else {
        return offered;
    };
    if (NARROWEST..=limit).contains(&bits) {
        let message = format!(
            "the guest-physical space has {bits} bits by override, whatever the devices reach"
        );
        let help = "for experiments only: DMA may fail or hit other memory";
        findings.push(Diagnostic::warning(Code::IpaOverride, message).with_help(help));
        return vec![bits];
    }
    let message = format!("the host offers no guest-physical space of {bits} bits");
    let help = format!("choose {NARROWEST} to {limit} bits, or leave the choice to the planner");
    findings.push(Diagnostic::error(Code::IpaOverrideImpossible, message).with_help(help));
    offered
}

/// What to do about a device that does not reach all of DRAM, with findings on what this platform
/// cannot do.
pub(super) fn dma_rule(
    spec: &VmSpec,
    platform: Platform,
    assigned: &[Assigned<'_>],
    findings: &mut Vec<Diagnostic>,
) -> DmaRule {
    if platform.is_confidential() {
        findings.extend(
            assigned
                .iter()
                .filter(|device| !device.is_direct())
                .map(translated),
        );
    }
    let top_bit = platform.shared_alias() == SharedAlias::TopBit;
    match spec.dma_rule {
        Some(DmaRule::Bounce) if top_bit => {
            let message = format!("`dma-rule = \"bounce\"` cannot work on '{platform}'");
            let finding = Diagnostic::error(Code::BounceImpossible, message);
            let help = "every shared page has the top address bit set there, so a narrow device reaches none to bounce through; leave the key out";
            findings.push(finding.on(Place::Vm("dma-rule")).with_help(help));
            DmaRule::Strict
        }
        Some(rule) => rule,
        None if platform.is_confidential() => DmaRule::Strict,
        None => DmaRule::Bounce,
    }
}

fn translated(device: &Assigned<'_>) -> Diagnostic {
    let message = format!(
        "{} cannot have translated DMA in a confidential VM",
        device.pci()
    );
    let help = "Linux guests do not map shared memory through an IOMMU yet (iommu_dma_alloc fails for it): use `dma = \"direct\"`, and `iommu.passthrough=1` on the guest's command line";
    Diagnostic::error(Code::TranslatedDmaImpossible, message)
        .about(device.pci())
        .on(device.place(Some("dma")))
        .with_help(help)
}
