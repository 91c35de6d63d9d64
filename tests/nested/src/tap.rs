//! A program that is started with a tap interface, as whoever manages the host's networks starts a VMM that
//! may make none itself.

use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use kvm::tap::Tap;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

/// Becomes the program of `command`, with the interface `name` as file descriptor `number`.
pub(crate) fn exec(name: &str, number: i32, command: &[&str]) -> anyhow::Result<()> {
    let [program, arguments @ ..] = command else {
        bail!("no program");
    };
    let taps = Tap::open(&name.parse()?, 1)?;
    let tap = taps.first().context("the interface has no queue")?;
    let passed = fcntl_dupfd_cloexec(tap, number)?;
    ensure!(
        passed.as_raw_fd() == number,
        "descriptor {number} is in use"
    );
    fcntl_setfd(&passed, FdFlags::empty())?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}
