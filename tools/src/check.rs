//! `ccvm check`: whether the VM of a config can run on a host.

use std::path::PathBuf;
use std::process::ExitCode;

use vmm::check::{Check, Judgement};
use vmm::host::Roots;
use vmm::plan::PlanOptions;
use vmm::report::{self, Report, Style};

use crate::config::{Config, host_facts};
use crate::output::{complain, print, style};

/// Exit code when config or facts are not what they should be.
const UNUSABLE: u8 = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Check for the host whose facts 'ccvm host --json' recorded, not for this one
    #[arg(long, value_name = "FACTS.json")]
    host: Option<PathBuf>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Draw the address space to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    config: Config,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON document; see 'ccvm schema report'
    Json,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    if let Some(printed) = args.config.printed() {
        return printed;
    }
    let facts = host_facts(args.host.as_deref());
    let known = facts.as_ref().ok().cloned();
    let mut check = args.config.check(facts, PlanOptions::default());
    if let (None, Some(known)) = (&args.host, &known) {
        check.look_at_boot_files(known.arch);
        check.look_at_resources(&Roots::this_host());
        check.look_at_disks();
        check.look_at_interfaces();
    }
    let report = Report::new(&check, known.as_ref());
    print(&match args.format {
        Format::Text => text(&check, &report, style(&std::io::stdout())),
        Format::Json => json(&report),
    });
    let judgement = check.judgement();
    if let Some(path) = args
        .svg
        .as_ref()
        .filter(|_| judgement != Judgement::Unusable)
        && let Err(error) = std::fs::write(path, report::svg(&report))
    {
        complain(&format!("cannot write {}: {error}", path.display()));
        return ExitCode::from(UNUSABLE);
    }
    ExitCode::from(match judgement {
        Judgement::Accepted => 0,
        Judgement::Rejected => 1,
        Judgement::Unusable => UNUSABLE,
    })
}

fn text(check: &Check, report: &Report, style: Style) -> String {
    let mut sections = vec![match check.judgement() {
        Judgement::Unusable => report::unusable(report, style),
        Judgement::Accepted | Judgement::Rejected => report::text(report, style),
    }];
    for file in &check.findings {
        let shown = report::findings(&file.diagnostics, file.source.as_ref(), style);
        sections.extend((!shown.is_empty()).then_some(shown));
    }
    sections.join("\n")
}

fn json(report: &Report) -> String {
    // A report is made of text, numbers and lists, all of which JSON can hold.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}
