//! The demo: a Realm with an assigned device, from the plan to the device's DMA.
#![expect(clippy::print_stdout, reason = "the demo is shown on standard output")]

use std::fs;

use anyhow::{Context as _, bail, ensure};

use crate::bed::Bed;
use crate::case::{Guest, Host, Platform, Run};
use crate::devices::{Backing, Role};
use crate::digest;
use crate::guest::Step;
use crate::machine::Script;
use crate::prepare::Prepared;
use crate::runner;

const TITLE: &str =
    "\nccvm demo: an unmodified Debian kernel as a Realm, with an assigned device\n";

/// Shows it in the testbed, with a network card whose DMA mask has 32 bits.
///
/// # Errors
/// When anything of what the demo claims is not so.
pub fn in_testbed(prepared: &Prepared) -> anyhow::Result<()> {
    println!("{TITLE}");
    println!("The host will be emulated: arm64 with KVM, an SMMUv3, VFIO and PCI devices.");
    let mut bed = Bed::boot(prepared)?;
    let outcome = show(&mut bed.host(true), Role::Nic, &prepared.guest.version);
    if outcome.is_err() {
        println!("logs and images are kept in {}", bed.keep().display());
    }
    outcome
}

/// Shows it on this machine, with a device that its operator names.
///
/// # Errors
/// As [`in_testbed`], and when this machine cannot play the host.
pub fn on_this_machine(prepared: &Prepared, address: &str) -> anyhow::Result<()> {
    println!("{TITLE}");
    let addresses = [address.to_owned()];
    runner::with_this_machine(prepared, &addresses, &[], |host| {
        host.show_console = true;
        let role = host.devices.first().context("no device was named")?.role;
        show(host, role, &prepared.guest.version)
    })
}

fn show(host: &mut Host<'_>, role: Role, kernel: &str) -> anyhow::Result<()> {
    let address = host.address(role)?;
    println!("\nThe host    {}", host.machine.read("uname -srm")?);
    println!("The device  {address}, {}\n", role.name());
    let guest = Guest {
        devices: vec![(role, None)],
        ..Guest::debian(Platform::Realm, steps(role, host.backing.is_some())?)
    };
    command(host, &format!("ccvm device bind {address}"))?;
    let config = guest.config(host)?;
    host.machine.write("/run/realm.toml", config.as_bytes())?;
    println!("$ cat realm.toml\n{}", indented(&config));
    command(host, "ccvm check /run/realm.toml")?;
    println!("$ ccvm run realm.toml");
    let run = host.boot(&guest)?;
    run.expect_status(0)?;
    let what = match (role, host.backing.clone()) {
        (Role::Nic, Some(backing)) => transferred(&run, &backing)?,
        (Role::Nic, None) => {
            run.expect("net_up", "0")?;
            "brought its interface up".to_owned()
        }
        _ => format!("read 4 MiB, SHA-256 {}", run.fact("disk_sha256")?),
    };
    let (_, plan) = host.check(&guest)?;
    println!(
        "\nShown: Debian's kernel {kernel} booted as a Realm (RSI {}) with {} address bits, as the \
         device's DMA width allows, and its own driver {what}.",
        run.fact("rsi")?,
        plan["ipa_bits"]
    );
    Ok(())
}

/// What the guest does with its device.
fn steps(role: Role, has_peer: bool) -> anyhow::Result<&'static [Step]> {
    match role {
        Role::Nic | Role::MsixNic if has_peer => Ok(&[
            Step::Facts,
            Step::Link,
            Step::Transfer,
            Step::Show,
            Step::Unload,
        ]),
        Role::Nic | Role::MsixNic => Ok(&[Step::Facts, Step::Link, Step::Show, Step::Unload]),
        Role::Ahci | Role::Nvme | Role::ApartNvme => {
            Ok(&[Step::Facts, Step::Disk, Step::Show, Step::Unload])
        }
        Role::NarrowEdu | Role::WideEdu | Role::SecondEdu | Role::Tied => {
            bail!(
                "the demo shows network cards and disks, not {}",
                role.name()
            )
        }
    }
}

/// Compares what the guest says of its transfers with what its peer has.
fn transferred(run: &Run, backing: &Backing) -> anyhow::Result<String> {
    let received = fs::read(backing.received()).context("cannot read what the peer received")?;
    let offered = fs::read(backing.offered()).context("cannot read what the peer sent")?;
    run.expect("sent_sha256", &digest::sha256(&received)?)?;
    run.expect("fetched_sha256", &digest::sha256(&offered)?)?;
    println!("\nIts peer, a process outside of the host:");
    println!(
        "    received {} bytes with the SHA-256 of what the guest sent",
        received.len()
    );
    println!(
        "    sent {} bytes, and the guest has the same SHA-256",
        offered.len()
    );
    Ok("moved 1 MiB each way, intact".to_owned())
}

/// Shows a command with its output, which must succeed.
fn command(host: &mut Host<'_>, text: &str) -> anyhow::Result<()> {
    println!("$ {}", text.replace("/run/", ""));
    let (_, arguments) = text
        .split_once(' ')
        .context("a command without arguments")?;
    let output = host
        .machine
        .run(&Script::quick(format!("{} {arguments}", host.ccvm)))?;
    println!("{}", indented(&output.text));
    ensure!(output.status == 0, "`{text}` gave {}", output.status);
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
