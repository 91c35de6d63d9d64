//! `ccvm completions` and `ccvm man`: what shells and man pages know of the command, made from the
//! command's own definition.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;

use crate::output::{complain, print};

/// Exit code when a file cannot be written.
const UNUSABLE: u8 = 2;

#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// Where to put the pages, one for each command
    folder: PathBuf,
}

/// Prints what `shell` needs to complete a command line.
pub(crate) fn completions(args: &CompletionsArgs, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Writes the man pages.
pub(crate) fn man(args: &ManArgs, command: clap::Command) -> ExitCode {
    match write_pages(&args.folder, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!(
                "cannot write man pages to {}: {error}",
                args.folder.display()
            ));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn write_pages(folder: &Path, command: clap::Command) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Clap adds a `help` command that explains the others: the pages do so themselves.
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
}
