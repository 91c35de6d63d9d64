//! `cargo xtask man`: the man pages, made from the command's own definition.

use std::process::Command;

use crate::progress::{run, step};

/// Where they go.
const FOLDER: &str = "target/man";

pub(crate) fn main() -> anyhow::Result<()> {
    step("man pages", || {
        let mut cargo = Command::new("cargo");
        cargo.args(["run", "--quiet", "--package", "ccvm", "--", "man", FOLDER]);
        run(&mut cargo)
    })?;
    println!("{FOLDER}/ccvm.1 and one for each command");
    Ok(())
}
