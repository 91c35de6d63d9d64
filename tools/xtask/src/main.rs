//! Project automation: `cargo xtask TASK`, one module for each task.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task reports to the person or the CI job that started it"
)]

mod bench;
mod ci;
mod cross;
mod demo;
mod direction;
mod images;
mod licences;
mod links;
mod man;
mod package;
mod progress;
mod test;
mod tidy;
mod vm;
mod vmtest;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project automation of ccvm.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check everything that a change must pass, then run all tests
    Ci(ci::Args),
    /// Run the tests: unit, property, golden and VM tests
    Test(test::Args),
    /// Boot a Realm with an assigned device, on this host or in the testbed
    Demo(demo::Args),
    /// Prepare what the VM tests need: packages, kernels, cross toolchain
    Images(images::Args),
    /// Print the figures that the project promises
    Bench(bench::Args),
    /// Write the man pages to target/man
    Man,
    /// Build the Debian package, into target/package
    Package(package::Args),
    /// Boot the testbed and run a command in it
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Ci(args) => ci::main(&args),
        Task::Test(args) => test::main(&args),
        Task::Demo(args) => demo::main(&args),
        Task::Images(args) => images::main(&args),
        Task::Bench(args) => bench::main(&args),
        Task::Man => man::main(),
        Task::Package(args) => package::main(&args),
        Task::Vm(args) => vm::main(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
