//! `cargo xtask test`.

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("there is nothing to run yet")
}
