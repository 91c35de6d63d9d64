//! A running VM is asked, checked, paused, ended and killed from outside.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::{ARM64, Arch, EVERY};
use crate::background::Background;
use crate::case::{Case, Guest, Host, Platform};
use crate::devices::Role;
use crate::guest::{Program, Step};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_running_realm_with_a_disk_tells_its_tables_and_they_are_right",
        on: ARM64,
        needs: &[Role::Nvme],
        run: tables,
    },
    Case {
        name: "a_paused_guest_stands_still_and_goes_on_and_stop_ends_it",
        on: EVERY,
        needs: &[],
        run: pause,
    },
    Case {
        name: "a_guest_whose_power_button_is_pressed_hears_of_it_and_turns_itself_off",
        on: EVERY,
        needs: &[],
        run: power_button,
    },
    Case {
        name: "a_refused_access_of_a_device_is_told_with_its_address",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: refused_access,
    },
    Case {
        name: "a_killed_ccvm_leaves_no_page_pinned_and_its_device_free_at_once",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: killed,
    },
];

/// The sum of a field over a list.
fn sum(list: &Value, field: &str) -> u64 {
    let members = list.as_array().into_iter().flatten();
    members.filter_map(|member| member[field].as_u64()).sum()
}

fn tables(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::Nvme])?;
    let address = host.address(Role::Nvme)?;
    let guest = Guest {
        devices: vec![(Role::Nvme, Some(36))],
        ..Guest::debian(Platform::Realm, &[Step::Disk, Step::Tick])
    };
    let mut running = Background::start(host, &guest)?;
    running.wait_for("the guest to have read its disk", |guest| {
        Ok(guest.console()?.contains("tick=0"))
    })?;

    let status = running.ask("status")?;
    ensure!(status["platform"] == "emulated-realm", "{status}");
    ensure!(status["state"] == "running", "{status}");
    ensure!(status["fault_watch"]["active"] == true, "{status}");
    let memory = status["memory"].as_u64().context("no memory")?;

    let devices = running.ask("devices")?;
    let device = &devices["list"][0];
    ensure!(device["pci"] == address.as_str(), "{devices}");
    ensure!(
        device["interface"]["state"] == "CONFIG_UNLOCKED",
        "{devices}"
    );
    ensure!(
        device["table"] == "t0" && device["faults"] == 0,
        "{devices}"
    );

    let metrics = running.ask("metrics")?;
    let count = |group: &str, name: &str| metrics[group][name].as_u64().unwrap_or(0);
    ensure!(count("exits", "mmio_write") > 0, "{metrics}");
    ensure!(count("exits", "hypercall") > 0, "{metrics}");
    ensure!(count("conversions", "shared_pages") > 0, "{metrics}");
    ensure!(
        metrics["devices"][0]["reach"] == device["reach"],
        "{metrics} and {devices}"
    );

    let map = running.ask("map --limit 65536")?;
    let states = &map["states"]["extents"];
    ensure!(sum(states, "size") == memory, "not all of memory: {map}");
    let all = states.as_array().into_iter().flatten();
    let shared = all.filter(|extent| extent["state"] == "shared");
    let shared: u64 = shared.filter_map(|extent| extent["size"].as_u64()).sum();
    let table = &map["tables"][0];
    ensure!(shared > 0 && shared < memory, "{map}");
    ensure!(
        sum(&table["t0"]["extents"], "size") == shared,
        "T0 is not what is shared: {map}"
    );
    ensure!(
        sum(&table["t1"]["extents"], "size") == memory,
        "T1 is not all of memory: {map}"
    );

    verify(&mut running)?;
    accept_and_stop(&mut running, &address)?;
    running.stop()
}

/// The interface goes through its states, and the tables follow.
fn accept_and_stop(running: &mut Background<'_, '_>, address: &str) -> anyhow::Result<()> {
    let refused = running.ctl("tdi start 00:01.0")?;
    ensure!(
        refused.status == 1,
        "an interface that is not locked was started: {}",
        refused.text
    );
    for (action, state, in_force) in [
        ("lock", "CONFIG_LOCKED", "t0"),
        ("start", "RUN", "t1"),
        ("stop", "CONFIG_UNLOCKED", "t0"),
    ] {
        let interface = running.ask(&format!("tdi {action} {address}"))?;
        ensure!(interface["state"] == state, "{action}: {interface}");
        let devices = running.ask("devices")?;
        ensure!(
            devices["list"][0]["table"] == in_force,
            "{action}: {devices}"
        );
        verify(running)?;
    }
    Ok(())
}

/// Both tables are what they must be, by ccvm's record and by the kernel's.
pub(super) fn verify(running: &mut Background<'_, '_>) -> anyhow::Result<()> {
    let verification = running.ask("verify")?;
    ensure!(verification["clean"] == true, "{verification}");
    let tables = verification["tables"].as_array().context("no tables")?;
    ensure!(!tables.is_empty(), "nothing was verified: {verification}");
    for table in tables {
        ensure!(table["held"] == table["recorded"], "{verification}");
        let counted = table.get("counted");
        ensure!(
            counted.is_none_or(|counted| *counted == table["recorded"]),
            "{verification}"
        );
    }
    Ok(())
}

fn ticks(running: &mut Background<'_, '_>) -> anyhow::Result<usize> {
    Ok(running.console()?.matches("tick=").count())
}

fn pause(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        vcpus: 2,
        ..Guest::debian(Platform::None, &[Step::Tick])
    };
    let mut running = Background::start(host, &guest)?;
    running.wait_for("the guest to count", |guest| Ok(ticks(guest)? > 1))?;
    running.ask("pause")?;
    // What was on its way to the console may still come.
    running.host().machine.read("sleep 1")?;
    let before = ticks(&mut running)?;
    running.host().machine.read("sleep 5")?;
    let after = ticks(&mut running)?;
    ensure!(
        before == after,
        "a paused guest counted from {before} to {after}"
    );
    let status = running.ask("status")?;
    ensure!(status["state"] == "paused", "{status}");
    running.ask("resume")?;
    running.wait_for("the guest to go on", |guest| Ok(ticks(guest)? > after + 1))?;
    // A VM that is paused can be ended, too.
    running.ask("pause")?;
    running.stop()?;
    let gone = running.ctl("status")?;
    ensure!(gone.status == 2, "somebody answers: {}", gone.text);
    Ok(())
}

fn power_button(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest::debian(Platform::hardest(host.arch), &[Step::Button]);
    let mut running = Background::start(host, &guest)?;
    running.wait_for("the guest to wait for its button", |guest| {
        Ok(guest.console()?.contains("button_device=event"))
    })?;
    let pressed = running.ask("powerbutton")?;
    ensure!(pressed.is_object(), "{pressed}");
    let status = running.finish(None)?;
    let console = running.console()?;
    let facts = Program::debian(&[]).facts(&console);
    let event = ["button_type", "button_code", "button_value"];
    let event = event.map(|fact| facts.get(fact).map(String::as_str));
    // The key KEY_POWER goes down.
    ensure!(event == [Some("1"), Some("116"), Some("1")], "{console}");
    ensure!(status == 0, "ccvm run gave {status}:\n{console}");
    Ok(())
}

fn refused_access(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    host.await_fault_log()?;
    let address = host.address(Role::WideEdu)?;
    let (test, fact) = match host.arch {
        Arch::Arm64 => ("edu-private-again", ("private_dma", "blocked")),
        Arch::X86_64 => ("edu-beyond-memory", ("result", "pass")),
    };
    let run = host.boot(&Guest {
        devices: vec![(Role::WideEdu, Some(36))],
        ..Guest::new(Platform::hardest(host.arch), Program::Payload(test))
    })?;
    run.expect(fact.0, fact.1)?;
    let told = format!("{address}: the host's IOMMU refused its write at 0x");
    ensure!(
        run.output.text.contains(&told),
        "ccvm did not tell:\n{}",
        run.tail()
    );
    Ok(())
}

fn killed(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let platform = Platform::hardest(host.arch);
    let guest = |program| Guest {
        vcpus: 2,
        devices: vec![(Role::WideEdu, Some(36))],
        ..Guest::new(platform, program)
    };
    // In a Realm memory is pinned as it is shared; elsewhere all of it is, at the start.
    let busy = match host.arch {
        Arch::Arm64 => Program::Payload("storm seconds=600"),
        Arch::X86_64 => Program::debian(&[Step::Tick]),
    };
    let before = host.pinned_pages()?;
    for round in 0..3 {
        let mut running = Background::start(host, &guest(busy.clone()))?;
        running.wait_for("the guest to be busy", |guest| match platform {
            Platform::Realm => Ok(guest.ask("convert")?["shared_extents"].as_u64() > Some(100)),
            _ => Ok(ticks(guest)? > 0),
        })?;
        verify(&mut running)?;
        let pages = running.host().pinned_pages()?;
        ensure!(pages > before, "round {round}: nothing is pinned");
        let status = running.finish(Some("KILL"))?;
        ensure!(status == 128 + 9, "round {round}: ccvm run gave {status}");
        let after = running.host().pinned_pages()?;
        ensure!(
            after == before,
            "round {round}: {} pages stay pinned",
            after - before
        );
    }
    let run = host.boot(&guest(Program::Payload("facts")))?;
    run.expect("result", "pass")?;
    run.expect_status(0)
}
