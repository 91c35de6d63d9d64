//! `ccvm schema`: the JSON Schemas of the documents that ccvm reads and writes.

use std::process::ExitCode;

use vmm::schema::Document;

use crate::output::print;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which document
    #[arg(value_enum)]
    document: Which,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Which {
    /// The config file (TOML)
    Config,
    /// Host facts, as 'ccvm host --json' prints them
    Host,
    /// The report of 'ccvm check --format json'
    Report,
    /// Requests and responses of 'ccvm run --control'
    Control,
    /// What 'ccvm measure --format json' prints
    Measure,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let document = match args.document {
        Which::Config => Document::Config,
        Which::Host => Document::Host,
        Which::Report => Document::Report,
        Which::Control => Document::Control,
        Which::Measure => Document::Measure,
    };
    print(&format!("{:#}\n", document.schema().to_value()));
    ExitCode::SUCCESS
}
