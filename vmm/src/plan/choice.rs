//! Which kind of VM: as the config says, or the best that the host offers.

use crate::config::spec::{DmaRule, VmSpec};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::host::facts::{Arch, HostFacts};
use crate::platform::{Platform, SharedAlias};

use super::assigned::Assigned;
use super::bounds::WIDEST;
use super::isolation;
use super::outcome::PlanOptions;

/// The narrowest guest-physical space that KVM and the RMM make on Arm.
pub(super) const NARROWEST: u8 = 32;

/// Confidential platforms that `auto` considers, the strongest first. One that is emulated, or for
/// development, protects nothing, and is never chosen unasked.
const BY_STRENGTH: [Platform; 4] = [Platform::Cca, Platform::Snp, Platform::Tdx, Platform::Pkvm];

/// Whether this ccvm launches such a VM; others it only plans.
pub(super) fn launches(platform: Platform, arch: Arch) -> bool {
    match platform {
        Platform::None => true,
        Platform::EmulatedRealm | Platform::Cca | Platform::Pkvm => arch == Arch::Aarch64,
        Platform::SwProtected | Platform::Snp | Platform::Tdx => arch == Arch::X86_64,
    }
}

/// What an operator who assigns devices should know of the platform.
pub(super) fn note_on_devices(platform: Platform, assigned: &[Assigned<'_>]) -> Option<String> {
    (platform == Platform::SwProtected && !assigned.is_empty()).then(|| {
        format!(
            "on '{platform}' a device reaches shared pages only, accepted or not: VFIO maps nothing from \
             where private pages are"
        )
    })
}

/// The most vCPUs of an x86-64 VM: an interrupt of a device names a local APIC by 8 bits, of which the
/// last value means all of them.
const MOST_X86_VCPUS: u32 = 255;

/// Says so where a VM of this architecture cannot have so many vCPUs.
pub(super) fn vcpus(spec: &VmSpec, arch: Arch, findings: &mut Vec<Diagnostic>) {
    if arch == Arch::X86_64 && spec.vcpus > MOST_X86_VCPUS {
        let message = format!(
            "an x86-64 VM has at most {MOST_X86_VCPUS} vCPUs, and this one is to have {}",
            spec.vcpus
        );
        let finding = Diagnostic::error(Code::TooManyVcpus, message);
        findings.push(finding.on(Place::Vm("vcpus")));
    }
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
        let (best, note) = automatic(spec, facts.arch, offered);
        notes.push(note);
        return best;
    };
    if facts.kvm.is_some() && !offered.contains(&wanted) {
        let lacking = facts.kvm.iter().flat_map(|kvm| &kvm.lacking);
        let mut lacking = lacking.filter(|lacking| lacking.platform == wanted);
        let why = lacking
            .next()
            .map(|lacking| format!(": {}", lacking.reason));
        let why = why.unwrap_or_default();
        let message = format!("the host does not offer the platform '{wanted}'{why}");
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

/// The strongest platform that the host offers, this ccvm launches and this config can have.
fn automatic(spec: &VmSpec, arch: Arch, offered: &[Platform]) -> (Platform, String) {
    let obstacle = |platform: Platform| match launches(platform, arch) {
        true => firmware_obstacle(spec, platform).or_else(|| isolation::obstacle(spec, platform)),
        false => Some("this ccvm does not launch it"),
    };
    let mut passed_over = Vec::new();
    for platform in BY_STRENGTH.into_iter().filter(|p| offered.contains(p)) {
        match obstacle(platform) {
            Some(why) => passed_over.push(format!("'{platform}' was passed over, {why}")),
            None => {
                let note = format!("platform '{platform}' is the strongest that the host offers");
                return (platform, explained(note, &passed_over));
            }
        }
    }
    let note = match passed_over.is_empty() {
        true => "platform 'none' was chosen: the host offers no confidential platform".to_owned(),
        false => "platform 'none' was chosen".to_owned(),
    };
    (Platform::None, explained(note, &passed_over))
}

/// Whether the config names firmware where the platform's guests start in some, and nowhere else.
fn firmware_obstacle(spec: &VmSpec, platform: Platform) -> Option<&'static str> {
    let boot = spec.boot.as_ref()?;
    match (platform, &boot.firmware) {
        (Platform::Tdx, None) => Some("it needs firmware, which the config does not name"),
        (Platform::Tdx, Some(_)) | (_, None) => None,
        (_, Some(_)) => Some("it boots its kernel without firmware, and the config names some"),
    }
}

fn explained(note: String, passed_over: &[String]) -> String {
    match passed_over {
        [] => note,
        some => format!("{note}: {}", some.join("; ")),
    }
}

/// The widths that the guest-physical space may have, ascending; none when the host's limit is not
/// known.
pub(super) fn widths(
    platform: Platform,
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
        // A TD's own width, whatever that of the processor is: what EPT of four and of five levels has.
        Arch::X86_64 if platform == Platform::Tdx => vec![48, 52],
        // The processor's own width: not for a VMM to choose.
        Arch::X86_64 => vec![limit],
    };
    let Some(bits) = options.override_ipa_bits else {
        return offered;
    };
    let possible = match platform {
        Platform::Tdx => offered.contains(&bits),
        _ => (NARROWEST..=limit).contains(&bits),
    };
    if possible {
        let message = format!(
            "the guest-physical space has {bits} bits by override, whatever the devices reach"
        );
        let help = "for experiments only: DMA may fail or hit other memory";
        findings.push(Diagnostic::warning(Code::IpaOverride, message).with_help(help));
        return vec![bits];
    }
    let message = format!("the host offers no guest-physical space of {bits} bits");
    let choices = match platform {
        Platform::Tdx => "48 or 52".to_owned(),
        _ => format!("{NARROWEST} to {limit}"),
    };
    let help = format!("choose {choices} bits, or leave the choice to the planner");
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
