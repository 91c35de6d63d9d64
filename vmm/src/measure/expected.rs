//! What a verifier should expect of the VM of a plan.

use std::io;

use iommu::Gpa;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::igvm;
use super::realm::{InitialContent, RealmHost, RmmVersion};
use super::rim::Lpa2;
#[cfg(target_arch = "x86_64")]
use super::snp_kernel;
use super::td;
use crate::boot::BootFiles;
use crate::boot::aarch64::{Image, Program, Seed};
use crate::boot::segment::{Segment, SegmentKind};
use crate::boot::x86_64;
use crate::causes::chain;
use crate::config::spec::BootSpec;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::plan::VmPlan;
use crate::platform::emulated_realm::RealmConfig;
use crate::platform::{Platform, cca};

/// Where a platform holds the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Register {
    /// `cca-realm-initial-measurement` of a CCA token, and what `RSI_MEASUREMENT_READ` gives for 0.
    RealmInitialMeasurement,
    /// `MEASUREMENT` of an SNP guest's attestation report.
    SnpLaunchDigest,
    /// `MRTD` of a TD's report.
    Mrtd,
}

impl Register {
    /// What a person calls it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::RealmInitialMeasurement => "Realm initial measurement",
            Self::SnpLaunchDigest => "SNP launch digest",
            Self::Mrtd => "TD build-time measurement (MRTD)",
        }
    }
}

/// A segment that is part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredSegment {
    /// What it is.
    pub kind: SegmentKind,
    /// Where its first byte goes.
    pub start: Gpa,
    /// How many bytes it has.
    pub bytes: u64,
    /// The SHA-256 of its content.
    pub sha256: Digest,
}

/// What a verifier should expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Where the platform holds it.
    pub register: Register,
    /// The algorithm, by its name in the IANA registry of named information hash algorithms.
    pub algorithm: &'static str,
    /// The measurement.
    pub digest: Digest,
    /// What is in the guest's memory when it starts, by ascending addresses.
    pub segments: Vec<MeasuredSegment>,
    /// How the kernel is told to start, with what ccvm adds.
    pub cmdline: String,
    /// The device tree that is part of the measurement, where there is one.
    pub device_tree: Option<Vec<u8>>,
    /// What it rests on.
    pub caveats: Vec<Diagnostic>,
}

/// What goes into a measurement, is the host's, and is not told by its facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredOn {
    /// Of a host that runs Realms; without it no Realm of hardware is measured.
    pub realm: Option<RealmHost>,
    /// The address bit that says encrypted to an SNP guest: 32 to 63 (CPUID 8000_001FH EBX\[5:0\]).
    pub encryption_bit: u8,
}

impl Default for MeasuredOn {
    /// A host of which nothing is said; the processors of AMD that have SNP so far have bit 51.
    fn default() -> Self {
        Self {
            realm: None,
            encryption_bit: 51,
        }
    }
}

/// Whose Realm it is.
enum Measurer {
    /// ccvm's own, which measures the pages that hold something.
    Emulated,
    /// An RMM's, which measures what KVM populates.
    Rmm(RealmHost),
}

impl Expected {
    /// Opens the files of `boot`, and measures what a launch of `plan` loads. No host is used; `host` is
    /// what an operator says of it.
    ///
    /// # Errors
    /// When the platform has no measurement that ccvm can foretell, or else everything that is wrong
    /// with the files.
    pub fn of(plan: &VmPlan, boot: &BootSpec, host: MeasuredOn) -> Result<Self, Vec<Diagnostic>> {
        let bits = plan.ipa_bits();
        let (parameters, measurer) = match (plan.platform(), host.realm) {
            (Platform::EmulatedRealm, _) => {
                (RealmConfig::new(bits).parameters(), Measurer::Emulated)
            }
            (Platform::Cca, Some(host)) => (host.parameters(bits), Measurer::Rmm(host)),
            (Platform::Cca, None) => return Err(vec![unknown_parameters()]),
            (Platform::None | Platform::Pkvm | Platform::SwProtected, _) => {
                return Err(vec![unmeasured(plan.platform())]);
            }
            (Platform::Snp, _) => return of_snp(plan, boot, host.encryption_bit),
            (Platform::Tdx, _) => return of_td(plan, boot),
        };
        let mut files = BootFiles::<Image>::open(boot)?;
        files.complete(plan);
        let placement = files.place(plan)?;
        let program = Program::new(plan, &files, placement);
        let tree = program.device_tree(Seed::None);
        let device_tree = tree.map_err(|error| vec![unusable(&error)])?;
        let segments = program
            .segments(&device_tree)
            .map_err(|error| vec![unusable(&error)])?;
        let content = InitialContent::of(&program, &segments);
        let read = |segment: &Segment<'_>, at, page: &mut _| {
            segment.read_page(at, page).map_err(unreadable(segment))
        };
        let (digest, caveats) = match measurer {
            Measurer::Emulated => (
                content.realm_initial_measurement(parameters, read)?,
                Vec::new(),
            ),
            Measurer::Rmm(host) => {
                let parts = segments.iter().map(|part| (part.start(), part.bytes()));
                let populated = cca::regions(parts).map_err(|error| vec![unusable(&error)])?;
                let digest =
                    content.populated_measurement(parameters, host.rmm, &populated, read)?;
                (digest, vec![on_the_word_of_the_operator(host)])
            }
        };
        let segments = segments.iter().map(measured);
        Ok(Self {
            register: Register::RealmInitialMeasurement,
            algorithm: parameters.hash.name(),
            digest,
            segments: segments.collect::<Result<_, _>>()?,
            cmdline: files.cmdline.clone(),
            device_tree: Some(device_tree),
            caveats,
        })
    }
}

/// An SNP guest that is an IGVM file has nothing measured but what the file says; a kernel has what it is told, too.
fn of_snp(plan: &VmPlan, boot: &BootSpec, bit: u8) -> Result<Expected, Vec<Diagnostic>> {
    let mut files = BootFiles::<x86_64::Image>::open(boot)?;
    files.complete(plan);
    let placement = files.place(plan)?;
    let (digest, segments) = match files.kernel.igvm() {
        Some(guest) => (
            igvm::launch_digest(guest, plan.vcpus()),
            igvm::segments(guest),
        ),
        None => of_snp_kernel(plan, &files, placement, bit)?,
    };
    let bit = files.kernel.igvm().is_none().then_some(bit);
    Ok(Expected {
        register: Register::SnpLaunchDigest,
        algorithm: "sha-384",
        digest,
        segments,
        cmdline: files.cmdline.clone(),
        device_tree: None,
        caveats: vec![on_no_processor(bit)],
    })
}

#[cfg(target_arch = "x86_64")]
fn of_snp_kernel(
    plan: &VmPlan,
    files: &BootFiles<x86_64::Image>,
    placement: x86_64::Placement,
    bit: u8,
) -> Result<(Digest, Vec<MeasuredSegment>), Vec<Diagnostic>> {
    let x86_64::Placement::Linux(placement) = placement else {
        return Err(vec![not_foretold(plan.platform())]);
    };
    let unknown = |error: snp_kernel::Unknown| vec![unusable(&error)];
    let program = snp_kernel::Program::new(plan, files, placement, bit).map_err(unknown)?;
    let digest = program.launch_digest().map_err(unknown)?;
    Ok((digest, program.segments().map_err(unknown)?))
}

/// What a kernel is told is put together by code for x86-64 alone.
#[cfg(not(target_arch = "x86_64"))]
fn of_snp_kernel(
    plan: &VmPlan,
    _: &BootFiles<x86_64::Image>,
    _: x86_64::Placement,
    _: u8,
) -> Result<(Digest, Vec<MeasuredSegment>), Vec<Diagnostic>> {
    let finding = not_foretold(plan.platform());
    Err(vec![finding.with_help(
        "a ccvm for x86-64 does: an SNP guest with a kernel is measured on such a machine",
    )])
}

/// A TD is measured as its firmware has it; what the firmware starts, it measures itself.
fn of_td(plan: &VmPlan, boot: &BootSpec) -> Result<Expected, Vec<Diagnostic>> {
    let mut files = BootFiles::<x86_64::Image>::open(boot)?;
    files.complete(plan);
    files.place(plan)?;
    let Some(firmware) = &files.firmware else {
        return Err(vec![not_foretold(plan.platform())]);
    };
    let unknown = |error: td::Unknown| vec![unusable(&error)];
    let content = td::Content::new(plan, &files, firmware).map_err(unknown)?;
    let digest = content.measurement().map_err(unknown)?;
    let segments = content.segments().map_err(unknown)?;
    Ok(Expected {
        register: Register::Mrtd,
        algorithm: "sha-384",
        digest,
        segments: segments.iter().map(measured).collect::<Result<_, _>>()?,
        cmdline: files.cmdline.clone(),
        device_tree: None,
        caveats: Vec::new(),
    })
}

/// How much of a segment is digested at a time.
const CHUNK: usize = 64 << 10;

fn measured(segment: &Segment<'_>) -> Result<MeasuredSegment, Vec<Diagnostic>> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    while let Some(rest) = segment.bytes().checked_sub(offset).filter(|&rest| rest > 0) {
        let length = usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK));
        let part = chunk.get_mut(..length).unwrap_or_default();
        segment.read_at(offset, part).map_err(unreadable(segment))?;
        hasher.update(&*part);
        offset = offset.saturating_add(length as u64);
    }
    Ok(MeasuredSegment {
        kind: segment.kind(),
        start: segment.start(),
        bytes: segment.bytes(),
        sha256: Digest::new(&hasher.finalize()),
    })
}

/// The platform's guests have nothing to show a verifier.
fn unmeasured(platform: Platform) -> Diagnostic {
    let message = format!("no verifier expects anything of a VM with platform '{platform}'");
    Diagnostic::error(Code::NotMeasured, message)
        .on(Place::Vm("platform"))
        .with_help(
            "its guests have no launch measurement: attest by what the guest itself measures",
        )
}

/// They have, but what goes into it is up to the host's kernel, too.
fn unknown_parameters() -> Diagnostic {
    let message = "a Realm is measured with how many breakpoints and watchpoints the RMM gives it, and by the \
                   RMM's version: host facts do not tell them";
    Diagnostic::error(Code::MeasurementNotForetold, message)
        .on(Place::Vm("platform"))
        .with_help(
            "say what that host has (--rmm, --breakpoints, --watchpoints); or read the measurement once from \
             a Realm on a host that you trust: RSI_MEASUREMENT_READ of 0",
        )
}

/// It is right if that host is as it was said to be, and its kernel does what was read of it.
fn on_the_word_of_the_operator(host: RealmHost) -> Diagnostic {
    let RealmHost {
        breakpoints,
        watchpoints,
        ..
    } = host;
    let (series, compared) = match host.rmm {
        RmmVersion::V1 => (
            "RMM 1.0 and the kernel's series v7",
            "such were the same as TF-RMM 0.6.0 made them, in an emulated processor and on no real one",
        ),
        RmmVersion::V2 => (
            "RMM 2.0 (beta) and the kernel's series v13 or v14",
            "none was compared with a real RMM's",
        ),
    };
    let lpa2 = match host.lpa2 {
        Lpa2::Off => "without",
        Lpa2::On => "with",
    };
    let message = format!(
        "this is a Realm's measurement under {series}, with {breakpoints} breakpoints and {watchpoints} \
         watchpoints, without SVE and a PMU, {lpa2} LPA2; {compared}"
    );
    Diagnostic::warning(Code::MeasurementUnproven, message)
        .on(Place::Vm("platform"))
        .with_help("compare it once with RSI_MEASUREMENT_READ of 0 before a verifier relies on it")
}

/// They have, and their launch decides what goes into it; ccvm does not put it together.
fn not_foretold(platform: Platform) -> Diagnostic {
    let message = format!("this ccvm does not foretell what a '{platform}' launch is measured as");
    Diagnostic::error(Code::MeasurementNotForetold, message)
        .on(Place::Vm("platform"))
        .with_help(
            "the digest itself is in the library: vmm::measure; the order is in docs/platforms",
        )
}

/// It is right if Linux and the security processor do what was read of them.
fn on_no_processor(bit: Option<u8>) -> Diagnostic {
    let bit = bit.map_or(String::new(), |bit| {
        format!("for a host whose address bit {bit} says encrypted, ")
    });
    let message = format!(
        "this is an SNP guest's launch digest {bit}with processors as Linux 7.3 starts them; none was compared with \
         a real one's"
    );
    Diagnostic::warning(Code::MeasurementUnproven, message)
        .on(Place::Vm("platform"))
        .with_help("compare it once with an attestation report from a host that you trust before a verifier relies on it")
}

fn unusable(error: &(dyn std::error::Error + 'static)) -> Diagnostic {
    Diagnostic::error(Code::MeasurementNotForetold, chain(error))
}

fn unreadable(segment: &Segment<'_>) -> impl FnOnce(io::Error) -> Vec<Diagnostic> + use<> {
    let kind = segment.kind();
    move |error| {
        let code = match kind {
            SegmentKind::Kernel
            | SegmentKind::DeviceTree
            | SegmentKind::Igvm
            | SegmentKind::Firmware
            | SegmentKind::CommandLine
            | SegmentKind::BootData => Code::KernelUnreadable,
            SegmentKind::Initrd => Code::InitrdUnreadable,
        };
        let message = format!("cannot read the {} any more: {error}", kind.title());
        vec![Diagnostic::error(code, message)]
    }
}
