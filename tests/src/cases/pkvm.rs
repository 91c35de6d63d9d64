//! Protected VMs, on a host that runs as pKVM.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::ARM64;
use crate::case::{Case, Guest, Host, Platform, Skip};
use crate::devices::Role;
use crate::guest::{End, Kernel, Program, Step};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_host_that_runs_as_pkvm_says_so_and_what_it_lacks_for_realms",
        on: ARM64,
        needs: &[],
        run: says_so,
    },
    Case {
        name: "debian_boots_as_a_protected_vm_with_2_vcpus_and_powers_off",
        on: ARM64,
        needs: &[],
        run: boots,
    },
    Case {
        name: "a_device_that_would_reach_private_memory_is_refused_unless_that_is_given_up",
        on: ARM64,
        needs: &[Role::WideEdu],
        run: refuses_devices,
    },
];

/// Skips the test on a host that makes no protected VMs.
fn require(host: &mut Host<'_>) -> anyhow::Result<Value> {
    let output = host.ccvm("host --json")?;
    let facts: Value = serde_json::from_str(&output.text).context("ccvm host printed no JSON")?;
    let mut offered = facts["kvm"]["platforms"].as_array().into_iter().flatten();
    if !offered.any(|platform| platform == "pkvm") {
        return Err(Skip("the host does not run as pKVM".to_owned()).into());
    }
    Ok(facts)
}

fn says_so(host: &mut Host<'_>) -> anyhow::Result<()> {
    let facts = require(host)?;
    let mut lacking = facts["kvm"]["lacking"].as_array().into_iter().flatten();
    let realms = lacking.find(|lacking| lacking["platform"] == "cca");
    let realms = realms.with_context(|| format!("nothing is said of Realms: {facts}"))?;
    let reason = realms["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("does not know the VM type"), "{reason}");
    Ok(())
}

fn boots(host: &mut Host<'_>) -> anyhow::Result<()> {
    require(host)?;
    let program = Program::Debian {
        kernel: Kernel::Packaged,
        steps: vec![Step::Facts],
        end: End::PowerOff,
    };
    let guest = Guest {
        vcpus: 2,
        ..Guest::new(Platform::Protected, program)
    };
    let run = host.boot(&guest)?;
    run.expect_status(0)?;
    run.expect("cpus", "2")?;
    run.expect("rsi", "")
}

fn refuses_devices(host: &mut Host<'_>) -> anyhow::Result<()> {
    require(host)?;
    let guest = Guest {
        devices: vec![(Role::WideEdu, None)],
        ..Guest::new(Platform::Protected, Program::Payload("facts"))
    };
    let (status, report) = host.check(&guest)?;
    ensure!(status == 1, "ccvm check gave {status}: {report}");
    let findings = report["diagnostics"].as_array().into_iter().flatten();
    let codes: Vec<&str> = findings
        .filter_map(|finding| finding["code"].as_str())
        .collect();
    ensure!(codes.contains(&"CCVM0701"), "{report}");
    Ok(())
}
