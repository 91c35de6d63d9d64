//! A network card with a 32-bit DMA mask: the IPA size decides whether it works.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::devices::{Backing, Role};
use crate::digest;
use crate::guest::Step;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_32_bit_network_card_gets_ipa_32_and_carries_traffic_in_a_realm",
        on: ARM64,
        needs: &[Role::Nic],
        run: at_the_planned_size,
    },
    Case {
        name: "a_network_card_with_a_line_interrupt_carries_traffic_in_a_plain_vm",
        on: EVERY,
        needs: &[Role::Nic],
        run: |host| in_a_plain_vm(host, Role::Nic)?.expect("net_messages", "0"),
    },
    Case {
        name: "a_network_card_with_msix_carries_traffic_in_a_plain_vm",
        on: EVERY,
        needs: &[Role::MsixNic],
        run: |host| {
            let run = in_a_plain_vm(host, Role::MsixNic)?;
            ensure!(
                run.number("net_messages")? > 0,
                "its interrupts are no messages"
            );
            Ok(())
        },
    },
    Case {
        name: "the_same_card_fails_at_ipa_36",
        on: ARM64,
        needs: &[Role::Nic],
        run: at_a_size_too_wide,
    },
    Case {
        name: "the_narrower_of_two_devices_decides",
        on: ARM64,
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

fn in_a_plain_vm(host: &mut Host<'_>, role: Role) -> anyhow::Result<Run> {
    host.backing()?;
    host.bind(&[role])?;
    let run = carries_traffic(
        host,
        &Guest {
            platform: Platform::None,
            devices: vec![(role, None)],
            ..guest()
        },
    )?;
    run.expect("rsi", "")?;
    ensure!(
        run.number("net_interrupts")? > 0,
        "the card raised no interrupt"
    );
    Ok(run)
}

/// Boots a guest whose card brings its link up and moves 1 MiB each way, intact.
pub(super) fn carries_traffic(host: &mut Host<'_>, guest: &Guest) -> anyhow::Result<Run> {
    let peer = fresh_peer(host)?;
    let run = host.boot(guest)?;
    run.expect_status(0)?;
    moved_intact(&run, &peer)?;
    Ok(run)
}

/// The peer on the other end of the card's link, which has received nothing yet.
pub(super) fn fresh_peer(host: &Host<'_>) -> anyhow::Result<Backing> {
    let peer = host.backing()?;
    fs::write(peer.received(), "").context("cannot empty the peer's file")?;
    Ok(peer)
}

/// Checks that 1 MiB arrived each way as it was sent.
pub(super) fn moved_intact(run: &Run, peer: &Backing) -> anyhow::Result<()> {
    run.expect("net_up", "0")?;
    run.expect("carrier", "1")?;
    let received = fs::read(peer.received()).context("cannot read what the peer received")?;
    ensure!(
        received.len() as u64 == TRANSFER,
        "the peer received {} bytes",
        received.len()
    );
    run.expect("sent_sha256", &digest::sha256(&received)?)?;
    let offered = fs::read(peer.offered()).context("cannot read what the peer sent")?;
    run.expect("fetched_sha256", &digest::sha256(&offered)?)
}

fn at_a_size_too_wide(host: &mut Host<'_>) -> anyhow::Result<()> {
    let peer = fresh_peer(host)?;
    host.bind(&[Role::Nic])?;
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
    let received = fs::read(peer.received()).context("cannot read what the peer received")?;
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
