//! `ccvm measure`: the launch measurement that a verifier should expect of a VM.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vmm::check::{Check, Judgement};
use vmm::diagnostic::{Code, Diagnostic};
use vmm::measure::report::MeasureReport;
use vmm::measure::{Expected, Lpa2, MeasuredOn, RealmHost, RmmVersion};
use vmm::plan::{Outcome, PlanOptions};
use vmm::report;

use crate::config::{Config, host_facts};
use crate::output::{complain, print, style};

/// Exit code when there is no measurement of the VM.
const REFUSED: u8 = 1;
/// Exit code when config or facts are not what they should be.
const UNUSABLE: u8 = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure for the host whose facts 'ccvm host --json' recorded, not for this one
    #[arg(long, value_name = "FACTS.json")]
    host: Option<PathBuf>,
    /// How to print what was measured
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the device tree that is measured to this file
    #[arg(long, value_name = "FILE")]
    device_tree: Option<PathBuf>,
    #[command(flatten)]
    realm: Realm,
    /// An SNP guest: the address bit that says encrypted on its host (CPUID 8000_001FH EBX, bits 5:0)
    #[arg(long, value_name = "N", default_value_t = MeasuredOn::default().encryption_bit,
          value_parser = clap::value_parser!(u8).range(32..=63))]
    encryption_bit: u8,
    #[command(flatten)]
    config: Config,
}

impl Args {
    fn host(&self) -> MeasuredOn {
        MeasuredOn {
            realm: self.realm.host(),
            encryption_bit: self.encryption_bit,
        }
    }
}

/// What host facts do not tell of a host that runs Realms.
#[derive(clap::Args)]
struct Realm {
    /// A Realm ('cca'): the version of the host's RMM
    #[arg(long, value_enum, requires = "breakpoints", requires = "watchpoints")]
    rmm: Option<Rmm>,
    /// A Realm: how many breakpoints the RMM gives it
    #[arg(long, value_name = "N", requires = "rmm", value_parser = clap::value_parser!(u8).range(2..=16))]
    breakpoints: Option<u8>,
    /// A Realm: how many watchpoints the RMM gives it
    #[arg(long, value_name = "N", requires = "rmm", value_parser = clap::value_parser!(u8).range(2..=16))]
    watchpoints: Option<u8>,
    /// A Realm under RMM 2.0: the host's KVM uses addresses of up to 52 bits (LPA2)
    #[arg(long, requires = "rmm")]
    lpa2: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Rmm {
    /// RMM 1.0: the kernel's series v7
    #[value(name = "1.0")]
    V1,
    /// RMM 2.0, a beta: the kernel's series v13 and v14
    #[value(name = "2.0")]
    V2,
}

impl Realm {
    fn host(&self) -> Option<RealmHost> {
        Some(RealmHost {
            rmm: match self.rmm? {
                Rmm::V1 => RmmVersion::V1,
                Rmm::V2 => RmmVersion::V2,
            },
            breakpoints: self.breakpoints?,
            watchpoints: self.watchpoints?,
            lpa2: match self.lpa2 {
                true => Lpa2::On,
                false => Lpa2::Off,
            },
        })
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON document; see 'ccvm schema measure'
    Json,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    if let Some(printed) = args.config.printed() {
        return printed;
    }
    let facts = host_facts(args.host.as_deref());
    let mut check = args.config.check(facts, PlanOptions::default());
    let expected = match check.judgement() {
        Judgement::Accepted => expected(&check, args.host())
            .inspect(|expected| check.add(expected.caveats.clone()))
            .map_err(|findings| check.add(findings))
            .ok(),
        Judgement::Rejected | Judgement::Unusable => None,
    };
    let report = MeasureReport::new(&check, expected.as_ref());
    match args.format {
        Format::Text => show(&check, &report),
        Format::Json => print(&json(&report)),
    }
    if let (Some(path), Some(expected)) = (&args.device_tree, &expected)
        && let Err(why) = write_device_tree(path, expected)
    {
        complain(&why);
        return ExitCode::from(UNUSABLE);
    }
    ExitCode::from(match check.judgement() {
        Judgement::Accepted => 0,
        Judgement::Rejected => REFUSED,
        Judgement::Unusable => UNUSABLE,
    })
}

fn expected(check: &Check, host: MeasuredOn) -> Result<Expected, Vec<Diagnostic>> {
    let plan = check.outcome.as_ref().and_then(Outcome::plan);
    let boot = check.spec.as_ref().and_then(|spec| spec.boot.as_ref());
    match (plan, boot) {
        (Some(plan), Some(boot)) => Expected::of(plan, boot, host),
        _ => {
            let message = "the config has no [boot] section";
            let finding = Diagnostic::error(Code::NothingToBoot, message);
            Err(vec![finding.with_help("add [boot] with at least 'kernel'")])
        }
    }
}

fn write_device_tree(path: &Path, expected: &Expected) -> Result<(), String> {
    let tree = expected.device_tree.as_ref();
    let tree = tree.ok_or("no device tree is part of this measurement")?;
    std::fs::write(path, tree).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The measurement goes to stdout alone; what there is to say of it, to stderr.
fn show(check: &Check, report: &MeasureReport) {
    if let Some(measurement) = &report.measurement {
        print(&measurement.text());
    }
    for file in &check.findings {
        let style = style(&std::io::stderr());
        crate::output::explain(&report::findings(
            &file.diagnostics,
            file.source.as_ref(),
            style,
        ));
    }
}

fn json(report: &MeasureReport) -> String {
    // It is made of text, numbers and lists, all of which JSON can hold.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}
