//! `cargo xtask vm`: the testbed's own command, in the package `vmtest`.

/// Arguments that the package `vmtest` parses.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `cargo xtask vm --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    crate::vmtest::run("vm", &args.arguments)
}
