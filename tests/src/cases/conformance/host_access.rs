//! What the host finds where a guest's memory is.

use anyhow::{Context as _, ensure};

use super::{MEMORY, guest};
use crate::background::Background;
use crate::case::{Host, Platform};

/// What the guest writes, and what it waits for (`tests/guest/src/tests/conformance/host.rs`).
const FROM_GUEST: u64 = 0x6775_6573_7420_3131;
const FROM_HOST: u64 = 0x686f_7374_2032_3232;
const SECRET: u64 = 0x7365_6372_6574_2033;

pub(super) fn shared(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    let mut waiting = Waiting::start(host, platform, "conformance row=host-shared")?;
    let found = waiting.read("shared_offset")?;
    ensure!(
        found == Some(FROM_GUEST),
        "the host finds {found:x?} in a shared page"
    );
    waiting.go_on()
}

/// To look may cost the guest the page (pKVM takes it away), so the guest does not use it afterwards.
pub(super) fn private(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    let mut waiting = Waiting::start(host, platform, "conformance row=host-private")?;
    let found = waiting.read("private_offset")?;
    ensure!(found != Some(SECRET), "the host reads a private page");
    waiting.go_on()
}

/// A guest that waits for its host to look at its memory.
struct Waiting<'h, 'm> {
    running: Background<'h, 'm>,
    process: u32,
    console: String,
}

impl<'h, 'm> Waiting<'h, 'm> {
    fn start(
        host: &'h mut Host<'m>,
        platform: Platform,
        part: &'static str,
    ) -> anyhow::Result<Self> {
        let mut running = Background::start(host, &guest(platform, part))?;
        running.wait_for("the guest to wait", |guest| {
            Ok(guest.console()?.contains("waiting=yes"))
        })?;
        Ok(Self {
            process: running.process()?,
            console: running.console()?,
            running,
        })
    }

    /// What the host finds at a place that the guest has told; `None` where it finds nothing at all.
    fn read(&mut self, place: &str) -> anyhow::Result<Option<u64>> {
        let offset = self.offset(place)?;
        let host = self.running.host();
        match host.guest_memory(self.process, offset, MEMORY)? {
            Some(address) => host.peek(self.process, address),
            None => Ok(None),
        }
    }

    fn offset(&self, place: &str) -> anyhow::Result<u64> {
        let mut lines = self.console.lines();
        let told = lines.find_map(|line| line.trim().strip_prefix(place)?.strip_prefix('='));
        let told = told.with_context(|| format!("the guest did not tell {place}"))?;
        told.parse().with_context(|| format!("{place} is {told}"))
    }

    /// Answers the guest in its shared page, by which it ends well.
    fn go_on(mut self) -> anyhow::Result<()> {
        let offset = self.offset("shared_offset")? + 8;
        let host = self.running.host();
        let address = host.guest_memory(self.process, offset, MEMORY)?;
        let address = address.context("the host has no shared memory there")?;
        host.poke(self.process, address, FROM_HOST)?;
        let status = self.running.finish(None)?;
        let console = self.running.console()?;
        ensure!(
            status == 0 && console.lines().any(|line| line.trim() == "result=pass"),
            "ccvm run gave {status}:\n{console}"
        );
        Ok(())
    }
}
