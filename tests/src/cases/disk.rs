//! A disk is assigned: the guest's own driver reads it and writes it.

use anyhow::{Context as _, ensure};

use crate::case::{Case, Guest, Host, Platform, Run};
use crate::devices::Role;
use crate::digest::{self, read_at};
use crate::guest::Step;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an_ahci_disk_reads_and_writes_in_a_realm",
        needs: &[Role::Ahci],
        run: ahci,
    },
    Case {
        name: "an_nvme_disk_reads_and_writes_in_a_realm",
        needs: &[Role::Nvme],
        run: nvme,
    },
];

const MIB: usize = 1 << 20;

fn ahci(host: &mut Host<'_>) -> anyhow::Result<()> {
    disk(host, Role::Ahci)
}

fn nvme(host: &mut Host<'_>) -> anyhow::Result<()> {
    disk(host, Role::Nvme)
}

fn disk(host: &mut Host<'_>, role: Role) -> anyhow::Result<()> {
    let image = host.backing()?.disk(role);
    host.bind(&[role])?;
    let guest = Guest {
        devices: vec![(role, Some(36))],
        steps: vec![Step::Facts, Step::Disk, Step::Unload],
        ..Guest::new(Platform::Realm)
    };
    let run = host.boot(&guest)?;
    run.expect_status(0)?;
    run.expect("rsi", "1.0")?;
    let there = digest::sha256(&read_at(&image, 0, 4 * MIB)?)?;
    run.expect("disk_sha256", &there)
        .context("what the guest read is not what is there")?;
    run.expect("written", "0")?;
    let expected: Vec<u8> = b"written by the guest\n"
        .iter()
        .copied()
        .cycle()
        .take(MIB)
        .collect();
    let written = read_at(&image, 8 * MIB as u64, MIB)?;
    ensure!(
        written == expected,
        "what the guest wrote did not arrive in the disk's image"
    );
    interrupts_and_bounces(&run)
}

fn interrupts_and_bounces(run: &Run) -> anyhow::Result<()> {
    ensure!(
        run.number("disk_interrupts")? > 0,
        "the disk raised no interrupt"
    );
    ensure!(
        run.number("bounced_slots")? > 0,
        "a Realm's disk must bounce through shared memory"
    );
    Ok(())
}
