//! `vmtest`: what `cargo xtask` starts for images, VM tests, the demo and the figures.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task reports to the person or the CI job that started it"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vmtest::prepare::{HostKind, Install, Profile, Refresh, require};
use vmtest::{on_host, runner};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
    /// Name what is missing on this machine and do not install it
    #[arg(long, global = true)]
    no_install: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Prepare what the VM tests need: packages, kernel, cross-built ccvm
    Images {
        /// Look for a newer kernel
        #[arg(long)]
        refresh: bool,
    },
    /// Run the VM tests
    Test(TestArgs),
    /// Boot an unmodified Debian kernel as a Realm with an assigned device
    Demo {
        /// On an arm64 machine with KVM and VFIO: use this PCI device of it, a disk or a network
        /// card, in place of the testbed's
        #[arg(long, value_name = "ADDRESS")]
        device: Option<String>,
    },
    /// Print the figures that the project promises
    Bench,
}

#[derive(clap::Args)]
struct TestArgs {
    /// Run only the tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Show the guests' consoles
    #[arg(long)]
    show_console: bool,
    /// Write a report as text and JSON into this folder
    #[arg(long)]
    report: Option<PathBuf>,
    /// Let this machine be the host
    #[arg(long)]
    on_host: bool,
    /// With --on-host: a PCI device that the tests may take from its driver
    #[arg(long, requires = "on_host")]
    device: Vec<String>,
    /// With --on-host: a disk among the devices whose content the tests may destroy
    #[arg(long, requires = "on_host")]
    scratch: Vec<String>,
}

fn main() -> ExitCode {
    let Cli { task, no_install } = Cli::parse();
    let install = if no_install {
        Install::Forbidden
    } else {
        Install::Allowed
    };
    let outcome = match task {
        Task::Images { refresh } => images(install, refresh),
        Task::Test(args) => test(install, &args),
        Task::Demo { device } => demo(install, device.as_deref()),
        Task::Bench => bench(install),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn images(install: Install, refresh: bool) -> anyhow::Result<ExitCode> {
    let refresh = if refresh {
        Refresh::Always
    } else {
        Refresh::WhenMissing
    };
    let prepared = require(HostKind::Testbed, install, refresh)?.build(Profile::Testbed)?;
    println!("kernel   {}", prepared.guest.kernel.display());
    println!("modules  {}", prepared.guest.modules.display());
    println!("busybox  {}", prepared.guest.busybox.display());
    println!("ccvm     {}", prepared.binaries.ccvm.display());
    Ok(ExitCode::SUCCESS)
}

fn demo(install: Install, device: Option<&str>) -> anyhow::Result<ExitCode> {
    let kind = if device.is_some() {
        HostKind::Local
    } else {
        HostKind::Testbed
    };
    if device.is_none() && cfg!(target_arch = "aarch64") && Path::new("/dev/kvm").exists() {
        eprintln!("--device ADDRESS runs the demo on this machine, with that device");
    }
    if kind == HostKind::Local {
        on_host::require()?;
    }
    let required = require(kind, install, Refresh::WhenMissing)?;
    let prepared = required.build(Profile::Testbed)?;
    match device {
        Some(address) => vmtest::demo::on_this_machine(&prepared, address)?,
        None => vmtest::demo::in_testbed(&prepared)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn bench(install: Install) -> anyhow::Result<ExitCode> {
    let required = require(HostKind::Testbed, install, Refresh::WhenMissing)?;
    vmtest::bench::of_this_machine()?;
    vmtest::bench::in_testbed(&required.build(Profile::Release)?)?;
    Ok(ExitCode::SUCCESS)
}

fn test(install: Install, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let by_default = || args.on_host.then(|| PathBuf::from("ccvm-report"));
    let options = runner::Options {
        filter: args.filter.clone(),
        show_console: args.show_console,
        report: args.report.clone().or_else(by_default),
        skips_fail: env::var("CI").is_ok_and(|ci| ci == "true"),
    };
    let kind = if args.on_host {
        HostKind::Local
    } else {
        HostKind::Testbed
    };
    if kind == HostKind::Local {
        on_host::require()?;
    }
    let tally = match require(kind, install, Refresh::WhenMissing) {
        Err(error) => runner::skip_all(&format!("{error:#}"), &options),
        Ok(required) => {
            let prepared = required.build(Profile::Testbed)?;
            match kind {
                HostKind::Testbed => runner::in_testbed(&prepared, &options)?,
                HostKind::Local => {
                    runner::on_this_machine(&prepared, &options, &args.device, &args.scratch)?
                }
            }
        }
    };
    println!("{tally}");
    Ok(if tally.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
