//! The `ccvm` command.
#![forbid(unsafe_code)]

mod check;
mod config;
mod ctl;
mod device;
mod generate;
mod host;
mod log;
mod measure;
mod output;
mod progress;
mod run;
mod schema;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory as _, Parser, Subcommand};

/// A VMM for confidential VMs with assigned devices.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a config against this host, or against recorded host facts
    Check(check::Args),
    /// Foretell the launch measurement that a verifier should expect
    Measure(measure::Args),
    /// Launch the VM of a config
    Run(run::Args),
    /// Ask a running VM, or tell it what to do
    Ctl(ctl::Args),
    /// Show what this host offers
    Host(host::Args),
    /// Hand a PCI device to VFIO and back
    Device(device::Args),
    /// Print the JSON Schema of a document
    Schema(schema::Args),
    /// Print the completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write the man pages
    #[command(hide = true)]
    Man(generate::ManArgs),
}

fn main() -> ExitCode {
    let started = Instant::now();
    match Cli::parse().command {
        Command::Check(args) => check::main(&args),
        Command::Measure(args) => measure::main(&args),
        Command::Run(args) => run::main(&args, started),
        Command::Ctl(args) => ctl::main(&args),
        Command::Host(args) => host::main(&args),
        Command::Device(args) => device::main(&args),
        Command::Schema(args) => schema::main(&args),
        Command::Completions(args) => generate::completions(&args, Cli::command()),
        Command::Man(args) => generate::man(&args, Cli::command()),
    }
}
