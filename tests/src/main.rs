//! `vmtest`: what `cargo xtask` starts for images, VM tests, the demo and the figures.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task reports to the person or the CI job that started it"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vmtest::case::Outcome;
use vmtest::prepare::{Install, Profile, Refresh, prepare};
use vmtest::runner;

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
    Test {
        /// Run only the tests whose name contains this
        #[arg(long)]
        filter: Option<String>,
        /// Show the guests' consoles
        #[arg(long)]
        show_console: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let install = if cli.no_install {
        Install::Forbidden
    } else {
        Install::Allowed
    };
    match cli.task {
        Task::Images { refresh } => {
            let refresh = if refresh {
                Refresh::Always
            } else {
                Refresh::WhenMissing
            };
            let prepared = prepare(install, refresh, Profile::Testbed)?;
            println!("kernel   {}", prepared.guest.kernel.display());
            println!("modules  {}", prepared.guest.modules.display());
            println!("busybox  {}", prepared.guest.busybox.display());
            println!("ccvm     {}", prepared.binaries.ccvm.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Test {
            filter,
            show_console,
        } => {
            let prepared = prepare(install, Refresh::WhenMissing, Profile::Testbed)?;
            let options = runner::Options {
                filter,
                show_console,
            };
            let results = runner::in_testbed(&prepared, &options)?;
            let failed = results
                .iter()
                .any(|result| matches!(result.outcome, Outcome::Failed(_)));
            Ok(if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
    }
}
