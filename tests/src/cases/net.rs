//! A network card with a 32-bit DMA mask: the IPA size decides whether it works.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::case::{Case, Guest, Host, Platform, Run};
use crate::devices::Role;
use crate::digest;
use crate::guest::Step;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_32_bit_network_card_gets_ipa_32_and_carries_traffic_in_a_realm",
        needs: &[Role::Nic],
        run: at_the_planned_size,
    },
    Case {
        name: "the_same_card_carries_traffic_in_a_plain_vm",
        needs: &[Role::Nic],
        run: in_a_plain_vm,
    },
    Case {
        name: "the_same_card_fails_at_ipa_36",
        needs: &[Role::Nic],
        run: at_a_size_too_wide,
    },
    Case {
        name: "the_narrower_of_two_devices_decides",
        needs: &[Role::Nic, Role::Ahci],
        run: two_devices,
    },
];

const TRANSFER: u64 = 1 << 20;

fn guest() -> Guest {
    Guest {
        devices: vec![(Role::Nic, None)],
        ..Guest::debian(
            Platform::Realm,
            &[Step::Facts, Step::Link, Step::Transfer, Step::Unload],
        )
    }
}

fn at_the_planned_size(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.backing()?;
    host.bind(&[Role::Nic])?;
    host.expect_plan(&guest(), 32, Role::Nic)?;
    let run = carries_traffic(host, &guest())?;
    run.expect("rsi", "1.0")
}

fn in_a_plain_vm(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.backing()?;
    host.bind(&[Role::Nic])?;
    let run = carries_traffic(
        host,
        &Guest {
            platform: Platform::None,
            ..guest()
        },
    )?;
    run.expect("rsi", "")
}

/// Boots a guest whose card brings its link up and moves 1 MiB each way, intact.
fn carries_traffic(host: &mut Host<'_>, guest: &Guest) -> anyhow::Result<Run> {
    let backing = host.backing()?;
    fs::write(backing.received(), "").context("cannot empty the peer's file")?;
    let run = host.boot(guest)?;
    run.expect_status(0)?;
    run.expect("net_up", "0")?;
    run.expect("carrier", "1")?;
    let received = fs::read(backing.received()).context("cannot read what the peer received")?;
    ensure!(
        received.len() as u64 == TRANSFER,
        "the peer received {} bytes",
        received.len()
    );
    run.expect("sent_sha256", &digest::sha256(&received)?)?;
    let offered = fs::read(backing.offered()).context("cannot read what the peer sent")?;
    run.expect("fetched_sha256", &digest::sha256(&offered)?)?;
    Ok(run)
}

fn at_a_size_too_wide(host: &mut Host<'_>) -> anyhow::Result<()> {
    let backing = host.backing()?;
    host.bind(&[Role::Nic])?;
    fs::write(backing.received(), "").context("cannot empty the peer's file")?;
    let run = host.boot(&Guest {
        ipa_bits: Some(36),
        ..guest()
    })?;
    run.expect("rsi", "1.0")?;
    ensure!(
        run.fact("net_up")? != "0",
        "the card came up at IPA 36:\n{}",
        run.tail()
    );
    ensure!(run.fact("carrier")? != "1", "the link is up at IPA 36");
    ensure!(
        run.number("fetched_bytes")? == 0,
        "the guest fetched data at IPA 36"
    );
    let received = fs::read(backing.received()).context("cannot read what the peer received")?;
    ensure!(received.is_empty(), "the peer received data at IPA 36");
    Ok(())
}

fn two_devices(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.backing()?;
    host.bind(&[Role::Nic, Role::Ahci])?;
    let both = Guest {
        devices: vec![(Role::Ahci, Some(36)), (Role::Nic, None)],
        ..Guest::debian(
            Platform::Realm,
            &[Step::Facts, Step::Disk, Step::Link, Step::Transfer],
        )
    };
    host.expect_plan(&both, 32, Role::Nic)?;
    let run = host.boot(&both)?;
    run.expect_status(0)?;
    ensure!(
        run.number("disk_interrupts")? > 0,
        "the disk raised no interrupt"
    );
    run.expect("carrier", "1")?;
    run.expect("fetched_bytes", &TRANSFER.to_string())
}
