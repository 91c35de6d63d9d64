//! The demo: a Realm with an assigned network card, from the plan to the transferred bytes.
#![expect(clippy::print_stdout, reason = "the demo is shown on standard output")]

use std::fs;

use anyhow::{Context as _, ensure};

use crate::bed::Bed;
use crate::case::{Guest, Host, Platform, Run};
use crate::devices::Role;
use crate::digest;
use crate::guest::Step;
use crate::machine::Script;
use crate::prepare::Prepared;

/// Shows it in the testbed.
///
/// # Errors
/// When anything of what the demo claims is not so.
pub fn in_testbed(prepared: &Prepared) -> anyhow::Result<()> {
    println!("\nccvm demo: a Realm with an assigned network card\n");
    println!("This machine: preparing an emulated arm64 host with KVM, an IOMMU and devices");
    let mut bed = Bed::boot(prepared)?;
    let outcome = show(&mut bed.host(true), &prepared.guest.version);
    if outcome.is_err() {
        println!("logs and images are kept in {}", bed.keep().display());
    }
    outcome
}

fn show(host: &mut Host<'_>, kernel: &str) -> anyhow::Result<()> {
    let backing = host.backing()?;
    let address = host.address(Role::Nic)?;
    println!("\nThe host: {}", host.machine.read("uname -srm")?);
    println!("The card: {address}, an Intel 82540EM (e1000), which drives 32 address bits\n");
    let guest = Guest {
        devices: vec![(Role::Nic, None)],
        ..Guest::debian(
            Platform::Realm,
            &[Step::Facts, Step::Net, Step::Show, Step::Unload],
        )
    };
    command(host, &format!("ccvm device bind {address}"))?;
    let config = guest.config(host)?;
    host.machine.write("/run/realm.toml", config.as_bytes())?;
    println!("$ cat realm.toml\n{}", indented(&config));
    command(host, "ccvm check /run/realm.toml")?;
    println!("$ ccvm run realm.toml");
    fs::write(backing.received(), "").context("cannot empty the peer's file")?;
    let run = host.boot(&guest)?;
    let received = fs::read(backing.received()).context("cannot read what the peer received")?;
    let offered = fs::read(backing.offered()).context("cannot read what the peer sent")?;
    run.expect_status(0)?;
    run.expect("carrier", "1")?;
    run.expect("sent_sha256", &digest::sha256(&received)?)?;
    run.expect("fetched_sha256", &digest::sha256(&offered)?)?;
    println!("\nThe peer, outside of the VM:");
    println!(
        "    received {} bytes, SHA-256 as the guest sent them",
        received.len()
    );
    println!(
        "    sent {} bytes, SHA-256 as the guest fetched them",
        offered.len()
    );
    conclude(host, &guest, &run, kernel)
}

fn conclude(host: &mut Host<'_>, guest: &Guest, run: &Run, kernel: &str) -> anyhow::Result<()> {
    let (_, plan) = host.check(guest)?;
    println!(
        "\nShown: Debian's unmodified kernel {kernel} booted as a Realm (RSI {}) of {} address \
         bits, the size that the card's DMA width allows, and its own driver moved 1 MiB each way.",
        run.fact("rsi")?,
        plan["ipa_bits"]
    );
    Ok(())
}

/// Shows a command with its output, which must succeed.
fn command(host: &mut Host<'_>, text: &str) -> anyhow::Result<()> {
    println!("$ {}", text.replace("/run/", ""));
    let output = host.machine.run(&Script::quick(text))?;
    println!("{}", indented(&output.text));
    ensure!(output.status == 0, "`{text}` gave {}", output.status);
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
