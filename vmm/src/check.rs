//! One check of a config against a host: `ccvm check` prints what it found, `ccvm run` obeys it.
//!
//! ```text
//! config file ─► Source ─► config::parse ─► VmSpec ┐
//!                                                  ├─► plan ─► Check
//! facts file or this machine ─► HostFacts ─────────┘
//! ```

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::boot::BootFiles;
use crate::config::{self, Locations, Source, VmSpec};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::host::facts::Arch;
use crate::host::{self, HostFacts};
use crate::plan::{self, Outcome, PlanOptions};

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
        check
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
        let looked_at = boot.map(|boot| {
            let files = BootFiles::open(boot)?;
            match plan {
                Some(plan) => files.place(plan.dram()).map(drop),
                None => Ok(()),
            }
        });
        let Some(Err(mut findings)) = looked_at else {
            return;
        };
        // Only arm64 kernels are known well enough to be judged by their content.
        findings.retain(|finding| {
            let absent = matches!(
                finding.code,
                Code::KernelUnreadable | Code::InitrdUnreadable
            );
            absent || arch == Arch::Aarch64
        });
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
