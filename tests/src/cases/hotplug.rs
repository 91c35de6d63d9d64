//! Devices come into a VM that runs, and leave it.

use anyhow::ensure;
use serde_json::Value;

use crate::arch::{ARM64, EVERY, X86_64};
use crate::background::Background;
use crate::case::{Case, Guest, Host, Platform, Run, in_one_line};
use crate::cases::control::verify;
use crate::cases::disk::{MebiBytes, host_digest};
use crate::cases::net::{fresh_peer, moved_intact};
use crate::devices::Role;
use crate::guest::Step;
use crate::machine::Output;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_disk_comes_into_a_running_vm_leaves_it_and_comes_again_after_the_host_has_used_it",
        on: EVERY,
        needs: &[Role::Nvme],
        run: |host| {
            // The same slot again, then another one.
            comes_and_goes(host, Role::Nvme, &[1, 1, 2])
        },
    },
    Case {
        name: "a_network_card_with_a_line_interrupt_comes_into_a_running_vm_and_carries_traffic",
        // On arm64 Linux' driver resets the card by I/O ports without asking whether it has any.
        on: X86_64,
        needs: &[Role::Nic],
        run: |host| card_comes(host, Role::Nic)?.expect("net_messages", "0"),
    },
    Case {
        name: "a_network_card_with_msix_comes_into_a_running_vm_and_carries_traffic",
        on: EVERY,
        needs: &[Role::MsixNic],
        run: |host| {
            let run = card_comes(host, Role::MsixNic)?;
            ensure!(run.number("net_messages")? > 0, "no interrupt is a message");
            Ok(())
        },
    },
    Case {
        name: "a_device_too_narrow_for_a_running_realm_does_not_come_and_the_realm_goes_on",
        on: ARM64,
        needs: &[Role::NarrowEdu],
        run: too_narrow,
    },
];

/// How long `unplug` waits: the guest's driver leaves five seconds to think better of it, and runs on an
/// emulated processor of an emulated processor.
const UNPLUG_SECONDS: u32 = 60;

/// A disk comes into each of `slots` in turn, is read, and leaves: the last time without being asked.
pub(super) fn comes_and_goes(host: &mut Host<'_>, role: Role, slots: &[u64]) -> anyhow::Result<()> {
    let part = MebiBytes { skip: 0, count: 4 };
    let on_disk = host_digest(host, role, part)?;
    host.bind(&[role])?;
    let address = host.address(role)?;
    let platform = Platform::hardest(host.arch);
    let guest = Guest {
        hotplug_ports: 2,
        ..Guest::debian(platform, &[Step::Slots])
    };
    let mut running = Background::start(host, &guest)?;
    wait_for_line(&mut running, "slots=ready")?;
    for (round, slot) in (1..).zip(slots) {
        let plugged = running.ask(&format!("plug {address} --slot {slot} --dma-bits 36"))?;
        ensure!(plugged["slot"] == *slot, "{plugged}");
        ensure!(plugged["guest"] == format!("{slot:02x}:00.0"), "{plugged}");
        wait_for_line(&mut running, &format!("came={round}:{on_disk}"))?;
        let device = only_device(&mut running)?;
        ensure!(device["slot"] == *slot && device["faults"] == 0, "{device}");
        verify(&mut running)?;
        if platform == Platform::Realm {
            running.ask(&format!("tdi lock {address}"))?;
            running.ask(&format!("tdi start {address}"))?;
            ensure!(only_device(&mut running)?["table"] == "t1", "not accepted");
            verify(&mut running)?;
        }
        let twice = running.ctl(&format!("plug {address}"))?;
        ensure!(
            twice.status == 1 && twice.text.contains("CCVM0205"),
            "assigned twice: {}",
            twice.text
        );
        let how = match round {
            last if last == slots.len() => format!("unplug {address} --force"),
            _ => format!("unplug {address} --wait {UNPLUG_SECONDS}"),
        };
        let unplugged = running.ask(&how)?;
        ensure!(unplugged["state"] == "gone", "{unplugged}");
        let devices = running.ask("devices")?;
        ensure!(devices["list"] == Value::Array(Vec::new()), "{devices}");
        wait_for_line(&mut running, &format!("left={round}:"))?;
        // The host's own driver has it meanwhile.
        let host = running.host();
        ensure!(host_digest(host, role, part)? == on_disk);
        host.bind(&[role])?;
    }
    running.stop()
}

/// A card comes, and moves 1 MiB each way.
fn card_comes(host: &mut Host<'_>, role: Role) -> anyhow::Result<Run> {
    let peer = fresh_peer(host)?;
    host.bind(&[role])?;
    let address = host.address(role)?;
    let guest = Guest {
        hotplug_ports: 1,
        ..Guest::debian(Platform::None, &[Step::Link, Step::Transfer, Step::Tick])
    };
    let mut running = Background::start(host, &guest)?;
    wait_for_line(&mut running, "init=1")?;
    running.ask(&format!("plug {address}"))?;
    wait_for_line(&mut running, "tick=0")?;
    let console = running.console()?;
    let run = Run {
        facts: guest.program.facts(&console),
        output: Output {
            status: 0,
            text: console,
        },
        stats: Value::Null,
    };
    moved_intact(&run, &peer)?;
    running.stop()?;
    Ok(run)
}

fn too_narrow(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::NarrowEdu])?;
    let address = host.address(Role::NarrowEdu)?;
    let guest = Guest {
        hotplug_ports: 1,
        ..Guest::debian(Platform::Realm, &[Step::Tick])
    };
    let cold = Guest {
        devices: vec![(Role::NarrowEdu, None)],
        ..guest.clone()
    };
    let (_, report) = host.check(&cold)?;
    let mut diagnostics = report["diagnostics"].as_array().into_iter().flatten();
    let reason = diagnostics.find(|finding| finding["code"] == "CCVM0103");
    let reason = reason.and_then(|finding| finding["message"].as_str());
    let reason = in_one_line(reason.unwrap_or("no reason was found"));
    let mut running = Background::start(host, &guest)?;
    wait_for_line(&mut running, "tick=1")?;
    let refused = running.ctl(&format!("plug {address}"))?;
    let said = in_one_line(&refused.text);
    ensure!(refused.status == 1, "it came: {said}");
    ensure!(said.contains("CCVM0560"), "{said}");
    ensure!(
        said.contains(&format!("CCVM0103: {reason}")),
        "{said}, and not {reason}"
    );
    let console = running.console()?;
    let ticks = console.matches("tick=").count();
    wait_for_line(&mut running, &format!("tick={}", ticks + 2))?;
    running.stop()
}

fn wait_for_line(running: &mut Background<'_, '_>, line: &str) -> anyhow::Result<()> {
    let line = format!("@@ {line}");
    running.wait_for(&line, |guest| Ok(guest.console()?.contains(&line)))
}

fn only_device(running: &mut Background<'_, '_>) -> anyhow::Result<Value> {
    let devices = running.ask("devices")?;
    let list = devices["list"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(list.len() == 1, "not one device: {devices}");
    Ok(list[0].clone())
}
