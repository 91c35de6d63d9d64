//! `ccvm run`: check, launch, look after the VM until it ends.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use vmm::check::{Check, Judgement};
use vmm::diagnostic::{Code, Diagnostic};
use vmm::plan::PlanOptions;
use vmm::report::{self, Style};

/// Exit code of a VM that was refused before it ran.
const REJECTED: u8 = 1;
/// Exit code when the config is not what it should be.
const UNUSABLE: u8 = 2;

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The config file
    config: PathBuf,
    /// For experiments: an IPA width of N bits, whatever the devices reach
    #[arg(long, value_name = "N")]
    override_ipa_bits: Option<u8>,
    /// Write what the run has cost to this file, as JSON, when it ends
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Keys on a terminal: Ctrl-A x ends the VM, Ctrl-A h shows help, Ctrl-A Ctrl-A sends Ctrl-A.

Exit codes: 0 the guest turned itself off, 1 the VM was refused, 2 the config is unusable, 3 the guest
asks for a reboot, 4 the guest crashed, 5 ended by Ctrl-A x, 6 the host could not go on, 128 + N ended
by signal N.

CCVM_LOG=info (or debug, trace) tells more on stderr.";

pub(crate) fn main(args: &Args, started: Instant) -> ExitCode {
    log_to_stderr();
    let options = PlanOptions {
        override_ipa_bits: args.override_ipa_bits,
    };
    let facts = vmm::host::read();
    tracing::info!("host facts read");
    let mut check = Check::of_file(&args.config, Ok(facts), options);
    tracing::info!("planned");
    let stats = match &args.stats {
        Some(path) => match File::create(path) {
            Ok(file) => Some(file),
            Err(error) => {
                let message = format!("cannot write {}: {error}", path.display());
                check.add(vec![Diagnostic::error(Code::RunFile, message)]);
                None
            }
        },
        None => None,
    };
    match check.judgement() {
        Judgement::Accepted => launch(check, stats, started),
        Judgement::Rejected => {
            print_findings(&check);
            ExitCode::from(REJECTED)
        }
        Judgement::Unusable => {
            print_findings(&check);
            ExitCode::from(UNUSABLE)
        }
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn launch(mut check: Check, _stats: Option<File>, _started: Instant) -> ExitCode {
    let message = "this version runs arm64 VMs only; on other machines it checks and plans";
    check.add(vec![Diagnostic::error(Code::ArchitectureNotRun, message)]);
    print_findings(&check);
    ExitCode::from(REJECTED)
}

#[cfg(target_arch = "aarch64")]
fn launch(mut check: Check, stats: Option<File>, started: Instant) -> ExitCode {
    use std::sync::Arc;

    use vmm::stats::Stats;

    check.add(no_confidentiality(&check));
    let planned = planned(&check).map_err(|findings| check.add(findings));
    print_findings(&check);
    let Ok(planned) = planned else {
        return ExitCode::from(REJECTED);
    };
    let counters = Arc::new(Stats::since(started));
    let running = planned
        .create()
        .and_then(|created| created.load())
        .and_then(|loaded| loaded.finalize())
        .and_then(|finalized| finalized.start(counters));
    let running = match running {
        Ok(running) => running,
        Err(error) => {
            complain(report::findings(&[error.diagnose()], None, style()).trim_end());
            return ExitCode::from(REJECTED);
        }
    };
    let (ending, report) = running.wait();
    complain(&format!("ccvm: {ending}"));
    if let Some(file) = stats
        && let Err(error) = serde_json::to_writer_pretty(file, &report)
    {
        complain(&format!("ccvm: cannot write the statistics: {error}"));
    }
    ExitCode::from(ending.exit_code())
}

/// What an operator must know of a VM that only looks like a confidential one.
#[cfg(target_arch = "aarch64")]
fn no_confidentiality(check: &Check) -> Option<Diagnostic> {
    let plan = check.outcome.as_ref()?.plan()?;
    (plan.platform() == vmm::platform::Platform::EmulatedRealm).then(|| {
        let message = "an emulated Realm gives no confidentiality: this host sees all of the guest";
        Diagnostic::warning(Code::NoConfidentiality, message)
            .on(vmm::diagnostic::Place::Vm("platform"))
            .with_help("use it to test guests and devices, never to protect data")
    })
}

/// What is to be launched, with its boot files: nothing has been touched.
#[cfg(target_arch = "aarch64")]
fn planned(check: &Check) -> Result<vmm::launch::Planned, Vec<Diagnostic>> {
    let plan = check.outcome.as_ref().and_then(|outcome| outcome.plan());
    let boot = check.spec.as_ref().and_then(|spec| spec.boot.as_ref());
    let (Some(plan), Some(boot)) = (plan, boot) else {
        let message = "the config has no [boot] section";
        let finding = Diagnostic::error(Code::NothingToBoot, message);
        return Err(vec![finding.with_help("add [boot] with at least 'kernel'")]);
    };
    vmm::launch::Planned::new(plan.clone(), boot)
}

fn print_findings(check: &Check) {
    for file in &check.findings {
        let text = report::findings(&file.diagnostics, file.source.as_ref(), style());
        if !text.is_empty() {
            complain(text.trim_end());
        }
    }
}

/// Colours for a terminal whose user has not asked for none (<https://no-color.org>).
fn style() -> Style {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match std::io::stderr().is_terminal() && !refused {
        true => Style::Coloured,
        false => Style::Plain,
    }
}

/// Says it on stderr. A reader that has gone away changes nothing.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CCVM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(style() == Style::Coloured)
        .init();
}
