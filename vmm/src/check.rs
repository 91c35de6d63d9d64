//! One check of a config against a host: `ccvm check` prints what it found, `ccvm run` obeys it.
//!
//! ```text
//! config file ─► Source ─► config::parse ─┬► VmSpec ┐
//! flags ─► config::Flags ─────────────────┘         ├─► plan ─► Check
//! facts file or this machine ─► HostFacts ──────────┘
//! ```

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::boot::{BootFiles, Kernel, aarch64, x86_64};
use crate::config::spec::{BootSpec, ResourceSpec};
use crate::config::{self, Flags, Locations, Parsed, Source, VmSpec};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::emulate::{look_at_disk, look_at_interface};
use crate::host::facts::Arch;
use crate::host::{self, HostFacts, Roots};
use crate::plan::{self, Outcome, PlanOptions, VmPlan};
use crate::resources;

/// The most bytes of a config that are read.
const MOST_CONFIG: u64 = 1 << 20;
/// The most bytes of host facts that are read: a thousand times a large host's.
const MOST_FACTS: u64 = 256 << 20;

/// Findings with the file that they point into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFindings {
    /// The file; absent when it could not be read.
    pub source: Option<Source>,
    /// What there is to say of it, in its order.
    pub diagnostics: Vec<Diagnostic>,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was asked for; absent unless the config is flawless.
    pub spec: Option<VmSpec>,
    /// What the planner found; absent unless config and facts are usable.
    pub outcome: Option<Outcome>,
    /// All findings, by file; the config's last.
    pub findings: Vec<FileFindings>,
    locations: Locations,
}

/// What a check says of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It can run.
    Accepted,
    /// It cannot run on this host.
    Rejected,
    /// The config or the facts are not what they should be, whatever the host.
    Unusable,
}

impl Check {
    /// Checks the config at `path` against `facts`.
    #[must_use]
    pub fn of_file(
        path: &Path,
        facts: Result<HostFacts, FileFindings>,
        options: PlanOptions,
    ) -> Self {
        let name = path.display().to_string();
        match read(path, MOST_CONFIG, Code::ConfigUnreadable, "config") {
            Ok(text) => {
                let base = path.parent().unwrap_or(Path::new(""));
                Self::new(Source::new(name, text), base, facts, options)
            }
            Err(finding) => Self {
                spec: None,
                outcome: None,
                findings: facts
                    .err()
                    .into_iter()
                    .chain([FileFindings::unread(finding)])
                    .collect(),
                locations: Locations::default(),
            },
        }
    }

    /// Checks a config whose relative paths count from `base`.
    #[must_use]
    pub fn new(
        source: Source,
        base: &Path,
        facts: Result<HostFacts, FileFindings>,
        options: PlanOptions,
    ) -> Self {
        let parsed = config::parse(&source, base);
        Self::of(source, parsed, facts, options)
    }

    /// Checks a config that flags describe.
    #[must_use]
    pub fn of_flags(
        flags: &Flags,
        facts: Result<HostFacts, FileFindings>,
        options: PlanOptions,
    ) -> Self {
        let (source, parsed) = flags.parse();
        Self::of(source, parsed, facts, options)
    }

    fn of(
        source: Source,
        parsed: Parsed,
        facts: Result<HostFacts, FileFindings>,
        options: PlanOptions,
    ) -> Self {
        let flawless = parsed.diagnostics.is_empty();
        let (facts, mut findings) = match facts {
            Ok(facts) => (Some(facts), Vec::new()),
            Err(findings) => (None, vec![findings]),
        };
        let mut outcome = parsed
            .spec
            .as_ref()
            .zip(facts.as_ref())
            .map(|(spec, facts)| plan::plan(spec, facts, options));
        let planned = outcome
            .as_mut()
            .map(|outcome| std::mem::take(&mut outcome.diagnostics));
        findings.push(FileFindings {
            source: Some(source),
            diagnostics: parsed.diagnostics,
        });
        let mut check = Self {
            spec: parsed.spec.filter(|_| flawless),
            outcome: outcome.filter(|_| flawless),
            findings,
            locations: parsed.locations,
        };
        // Of a config that was only partly understood, only what cannot be right is told.
        let told = planned.into_iter().flatten();
        check.add(told.filter(|finding| flawless || finding.severity == Severity::Error));
        let resources = check.resources();
        let impossible = resources.and_then(|(spec, plan)| resources::of_plan(spec, plan));
        check.add(impossible);
        check
    }

    /// What the VM asks of its host, and its plan, when both are known.
    fn resources(&self) -> Option<(&ResourceSpec, &VmPlan)> {
        let spec = self.spec.as_ref()?;
        Some((&spec.resources, self.outcome.as_ref()?.plan()?))
    }

    /// Looks at whether this host has the resources that the VM asks for.
    pub fn look_at_resources(&mut self, roots: &Roots) {
        let Some((spec, plan)) = self.resources() else {
            return;
        };
        let missing = resources::of_host(spec, plan.memory(), roots);
        self.add(missing);
    }

    /// Adds findings about the config, and points them at their places in it.
    pub fn add(&mut self, findings: impl IntoIterator<Item = Diagnostic>) {
        let Some(config) = self.findings.last_mut() else {
            return;
        };
        config.diagnostics.extend(findings);
        self.locations.resolve(&mut config.diagnostics);
        let start = |finding: &Diagnostic| finding.span.as_ref().map(|span| span.start);
        config
            .diagnostics
            .sort_by_key(|finding| start(finding).unwrap_or(usize::MAX));
    }

    /// Looks at the files that `[boot]` names, as this host of architecture `arch` would load them.
    pub fn look_at_boot_files(&mut self, arch: Arch) {
        let boot = self.spec.as_ref().and_then(|spec| spec.boot.as_ref());
        let plan = self.outcome.as_ref().and_then(Outcome::plan);
        let looked_at = boot.map(|boot| match arch {
            Arch::Aarch64 => look_at::<aarch64::Image>(boot, plan),
            Arch::X86_64 => look_at::<x86_64::Image>(boot, plan),
        });
        if let Some(Err(findings)) = looked_at {
            self.add(findings);
        }
    }

    /// Looks at the images of the disks, as a run would open them.
    pub fn look_at_disks(&mut self) {
        let disks = self
            .spec
            .iter()
            .flat_map(|spec| spec.disks.iter().enumerate());
        let looked = disks.flat_map(|(index, disk)| look_at_disk(disk, index));
        let findings: Vec<Diagnostic> = looked.collect();
        self.add(findings);
    }

    /// Looks at the interfaces behind network devices.
    pub fn look_at_interfaces(&mut self) {
        let nets = self.spec.iter().flat_map(|spec| &spec.virtio.nets);
        let looked = nets
            .enumerate()
            .flat_map(|(index, net)| look_at_interface(net, index));
        let findings: Vec<Diagnostic> = looked.collect();
        self.add(findings);
    }

    /// What the check says of the VM.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        match &self.outcome {
            None => Judgement::Unusable,
            Some(outcome) if outcome.plan().is_none() || self.has_errors() => Judgement::Rejected,
            Some(_) => Judgement::Accepted,
        }
    }

    fn has_errors(&self) -> bool {
        let mut diagnostics = self.findings.iter().flat_map(|file| &file.diagnostics);
        diagnostics.any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Reads recorded host facts.
///
/// # Errors
/// When the file cannot be read, or is not a host facts document.
pub fn recorded_facts(path: &Path) -> Result<HostFacts, FileFindings> {
    let text = read(path, MOST_FACTS, Code::HostFactsUnreadable, "host facts")
        .map_err(FileFindings::unread)?;
    host::from_json(&text).map_err(|finding| FileFindings {
        source: Some(Source::new(path.display().to_string(), text)),
        diagnostics: vec![finding],
    })
}

impl FileFindings {
    fn unread(finding: Diagnostic) -> Self {
        Self {
            source: None,
            diagnostics: vec![finding],
        }
    }
}

/// Reads at most `most` bytes of text.
fn read(path: &Path, most: u64, code: Code, what: &str) -> Result<String, Diagnostic> {
    let unreadable = |why: String| {
        let message = format!("cannot read the {what} {}: {why}", path.display());
        Diagnostic::error(code, message)
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        return Err(unreadable(format!("it has more than {} MiB", most >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        unreadable(format!("it is not UTF-8 text (byte {offset})"))
    })
}

/// Looks at the files of `boot`, and for places in the memory of `plan`, if there is one.
fn look_at<K: Kernel>(boot: &BootSpec, plan: Option<&VmPlan>) -> Result<(), Vec<Diagnostic>> {
    let files = BootFiles::<K>::open(boot)?;
    match plan {
        Some(plan) => files.place(plan).map(drop),
        None => Ok(()),
    }
}
