//! `ccvm run`: check, launch, look after the VM until it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use vmm::check::FileFindings;
use vmm::check::{Check, Judgement};
use vmm::control::ControlSocket;
use vmm::diagnostic::{Code, Diagnostic};
use vmm::host::Roots;
use vmm::plan::PlanOptions;
use vmm::platform::Platform;

use crate::config::Config;
use crate::log::{self, Log};

/// Exit code of a VM that was refused before it ran.
const REJECTED: u8 = 1;
/// Exit code when the config is not what it should be.
const UNUSABLE: u8 = 2;

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// For experiments: an IPA width of N bits, whatever the devices reach
    #[arg(long, value_name = "N")]
    override_ipa_bits: Option<u8>,
    /// Write what the run has cost to this file, as JSON, when it ends
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Answer 'ccvm ctl' at this unix socket
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// How log, findings and ending are told on stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = log::Format::Text)]
    log_format: log::Format,
    /// An accepted device reaches private pages only, to show what breaks then
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    debug_leave_out_mirror: bool,
    #[cfg(debug_assertions)]
    #[command(flatten)]
    faults: Faults,
    #[command(flatten)]
    config: Config,
}

/// For tests of what becomes of a host call that fails.
#[cfg(debug_assertions)]
#[derive(clap::Args)]
struct Faults {
    /// Log every host call
    #[arg(long, hide = true)]
    debug_list_host_calls: bool,
    /// Make one host call fail: CALL:N:ERRNO
    #[arg(long, hide = true, conflicts_with = "debug_list_host_calls")]
    debug_fail_host_call: Option<hostcall::Fault>,
}

#[cfg(debug_assertions)]
impl Faults {
    fn arm(&self) {
        if let Some(fault) = &self.debug_fail_host_call {
            hostcall::arm(hostcall::Mode::Fail(fault.clone()));
        } else if self.debug_list_host_calls {
            hostcall::arm(hostcall::Mode::List);
        }
    }
}

const AFTER_HELP: &str = "\
Keys on a terminal: Ctrl-A x ends the VM, Ctrl-A h shows help, Ctrl-A Ctrl-A sends Ctrl-A.

Exit codes: 0 the guest turned itself off, 1 the VM was refused, 2 the config is unusable, 3 the guest
asks for a reboot, 4 the guest crashed, 5 ended by Ctrl-A x, 6 the host could not go on, 7 ended by
'ccvm ctl', 128 + N ended by signal N.

CCVM_LOG=info (or debug, trace) tells more on stderr; --log-format json does so for programs.";

pub(crate) fn main(args: &Args, started: Instant) -> ExitCode {
    if let Some(printed) = args.config.printed() {
        return printed;
    }
    let log = Log::start(args.log_format);
    #[cfg(debug_assertions)]
    args.faults.arm();
    let options = PlanOptions {
        override_ipa_bits: args.override_ipa_bits,
    };
    let facts = vmm::host::read();
    tracing::info!("host facts read");
    let mut check = args.config.check(Ok(facts), options);
    check.look_at_resources(&Roots::this_host());
    tracing::info!("planned");
    let mut complaints = Vec::new();
    let ends = Ends {
        stats: take(&mut complaints, args.stats.as_deref().map(create)),
        control: take(&mut complaints, args.control.as_deref().map(listen)),
        #[cfg(debug_assertions)]
        without_mirror: args.debug_leave_out_mirror,
    };
    check.add(complaints);
    match check.judgement() {
        Judgement::Accepted => launch(check, ends, &log, started),
        Judgement::Rejected => {
            log.findings(&check.findings);
            ExitCode::from(REJECTED)
        }
        Judgement::Unusable => {
            log.findings(&check.findings);
            ExitCode::from(UNUSABLE)
        }
    }
}

/// Where a run can be looked into from outside.
struct Ends {
    stats: Option<File>,
    control: Option<ControlSocket>,
    #[cfg(debug_assertions)]
    without_mirror: bool,
}

fn create(path: &Path) -> Result<File, Diagnostic> {
    File::create(path).map_err(|error| {
        let message = format!("cannot write {}: {error}", path.display());
        Diagnostic::error(Code::RunFile, message)
    })
}

fn listen(path: &Path) -> Result<ControlSocket, Diagnostic> {
    ControlSocket::bind(path).map_err(Diagnostic::from)
}

/// What was asked for, or else a complaint.
fn take<T>(complaints: &mut Vec<Diagnostic>, asked: Option<Result<T, Diagnostic>>) -> Option<T> {
    asked?.map_err(|complaint| complaints.push(complaint)).ok()
}

fn launch(mut check: Check, ends: Ends, log: &Log, started: Instant) -> ExitCode {
    use std::sync::Arc;

    use vmm::launch::Surroundings;
    use vmm::stats::Stats;

    check.add(no_confidentiality(&check));
    let planned = planned(&check).map_err(|findings| check.add(findings));
    log.findings(&check.findings);
    let Ok(planned) = planned else {
        return ExitCode::from(REJECTED);
    };
    #[cfg(debug_assertions)]
    let planned = match ends.without_mirror {
        true => planned.without_mirror(),
        false => planned,
    };
    let counters = Arc::new(Stats::since(started));
    let mut progress = log.progress();
    let surroundings = Surroundings {
        screen: log.screen(),
        progress: &mut |populated| progress.show(populated.done, populated.all),
    };
    let running = planned
        .create(surroundings)
        .and_then(|created| created.load())
        .and_then(|loaded| loaded.finalize())
        .and_then(|finalized| finalized.start(counters, ends.control));
    let running = match running {
        Ok(running) => running,
        Err(error) => {
            log.findings(&[FileFindings {
                source: None,
                diagnostics: vec![error.diagnose()],
            }]);
            return ExitCode::from(REJECTED);
        }
    };
    let (ending, report) = running.wait();
    log.ending(&ending);
    if let Some(file) = ends.stats
        && let Err(error) = serde_json::to_writer_pretty(file, &report)
    {
        tracing::error!("cannot write the statistics: {error}");
    }
    ExitCode::from(ending.exit_code())
}

/// What an operator must know of a VM that only looks like a confidential one.
fn no_confidentiality(check: &Check) -> Option<Diagnostic> {
    let plan = check.outcome.as_ref()?.plan()?;
    let message = match plan.platform() {
        Platform::EmulatedRealm => {
            "an emulated Realm gives no confidentiality: this host sees all of the guest"
        }
        Platform::SwProtected => {
            "a software-protected VM gives no confidentiality: its host's kernel sees all of the guest"
        }
        Platform::None | Platform::Cca | Platform::Pkvm | Platform::Snp | Platform::Tdx => {
            return None;
        }
    };
    let finding = Diagnostic::warning(Code::NoConfidentiality, message)
        .on(vmm::diagnostic::Place::Vm("platform"))
        .with_help("use it to test guests and devices, never to protect data");
    Some(finding)
}

/// What is to be launched, with its boot files: nothing has been touched.
fn planned(check: &Check) -> Result<vmm::launch::Planned, Vec<Diagnostic>> {
    let plan = check.outcome.as_ref().and_then(|outcome| outcome.plan());
    let spec = check.spec.as_ref();
    let boot = spec.and_then(|spec| Some((spec.boot.as_ref()?, &spec.resources)));
    let (Some(plan), Some((boot, resources))) = (plan, boot) else {
        let message = "the config has no [boot] section";
        let finding = Diagnostic::error(Code::NothingToBoot, message);
        return Err(vec![finding.with_help(
            "add `[boot]` with at least `kernel`, or --kernel to the flags",
        )]);
    };
    vmm::launch::Planned::new(plan.clone(), boot, resources.clone())
}
