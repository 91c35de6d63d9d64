//! The end of a VM, and its next beginning.

use anyhow::ensure;

use super::{guest_with_device, passes};
use crate::background::Background;
use crate::case::{Host, Platform};
use crate::devices::Role;

pub(super) fn teardown(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let before = host.pinned_pages()?;
    let processes = processes(host)?;
    let mut running = run_busy(host, platform)?;
    let process = running.process()?;
    let pinned = running.host().pinned_pages()?;
    ensure!(pinned > before, "nothing is pinned for the device");
    end(&mut running)?;
    let after = running.host().pinned_pages()?;
    ensure!(after == before, "{} pages stay pinned", after - before);
    let gone = format!("[ ! -e /proc/{process} ] && echo gone || echo there");
    ensure!(
        running.host().machine.read(&gone)? == "gone",
        "ccvm is still there"
    );
    drop(running);
    let left = self::processes(host)?;
    ensure!(
        left <= processes,
        "{left} processes of ccvm, not {processes}"
    );
    Ok(())
}

pub(super) fn relaunch(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let mut running = run_busy(host, platform)?;
    end(&mut running)?;
    drop(running);
    for _ in 0..2 {
        passes(
            host,
            &guest_with_device(platform, "conformance row=device-page"),
        )?;
    }
    Ok(())
}

/// A VM whose device works.
fn run_busy<'h, 'm>(
    host: &'h mut Host<'m>,
    platform: Platform,
) -> anyhow::Result<Background<'h, 'm>> {
    let guest = guest_with_device(platform, "conformance row=stay");
    let mut running = Background::start(host, &guest)?;
    running.wait_for("the guest's device to work", |guest| {
        Ok(guest.console()?.contains("staying=yes"))
    })?;
    Ok(running)
}

fn end(running: &mut Background<'_, '_>) -> anyhow::Result<()> {
    running.stop()
}

/// How many processes of ccvm there are.
fn processes(host: &mut Host<'_>) -> anyhow::Result<usize> {
    let ids = host.machine.read("pidof ccvm || true")?;
    Ok(ids.split_whitespace().count())
}
