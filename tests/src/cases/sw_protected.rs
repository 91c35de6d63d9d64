//! Software-protected VMs, on a host whose kernel makes them: private memory and conversions that are
//! real, beside the DMA of a device that is real to the host.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{disk, storm};
use crate::arch::X86_64;
use crate::case::{Case, Guest, Host, Platform, Run, Skip};
use crate::devices::Role;
use crate::guest::{Program, Step};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_host_that_makes_software_protected_vms_says_so_and_auto_takes_none",
        on: X86_64,
        needs: &[Role::WideEdu],
        run: says_so,
    },
    Case {
        name: "a_page_of_a_software_protected_vm_has_two_forms_and_nonsense_is_refused",
        on: X86_64,
        needs: &[],
        run: contents,
    },
    Case {
        name: "a_device_reaches_a_page_of_a_software_protected_vm_as_long_as_it_is_shared",
        on: X86_64,
        needs: &[Role::WideEdu],
        run: device,
    },
    Case {
        name: "a_device_of_a_software_protected_vm_loses_nothing_while_pages_around_its_buffers_change",
        on: X86_64,
        needs: &[Role::WideEdu],
        run: converts_beside_dma,
    },
    Case {
        name: "a_kernel_that_knows_nothing_of_private_pages_uses_a_disk_in_a_software_protected_vm",
        on: X86_64,
        needs: &[Role::Nvme],
        run: unmodified,
    },
];

/// Skips the test on a host that makes no such VMs.
fn require(host: &mut Host<'_>) -> anyhow::Result<()> {
    let output = host.ccvm("host --json")?;
    let facts: Value = serde_json::from_str(&output.text).context("ccvm host printed no JSON")?;
    let offered = |platform: &str| {
        let mut platforms = facts["kvm"]["platforms"].as_array().into_iter().flatten();
        platforms.any(|offered| offered == platform)
    };
    ensure!(offered("none"), "{facts}");
    match offered("sw-protected") {
        true => Ok(()),
        false => Err(Skip(format!("the host offers none: {}", facts["kvm"]["lacking"])).into()),
    }
}

/// What check says of it: it is planned when it is asked for, and never otherwise.
fn says_so(host: &mut Host<'_>) -> anyhow::Result<()> {
    require(host)?;
    host.bind(&[Role::WideEdu])?;
    let output = host.ccvm("check --platform auto --vcpus 1 --memory 512MiB --format json")?;
    let report: Value = serde_json::from_str(&output.text)
        .with_context(|| format!("ccvm check printed no report: {}", output.text))?;
    ensure!(report["platform"] == "none", "{report}");
    let (status, report) = host.check(&guest("facts", &[Role::WideEdu]))?;
    ensure!(status == 0, "{status}: {report}");
    let mut notes = report["notes"].as_array().into_iter().flatten();
    let said = |note: &Value| {
        let note = note.as_str().unwrap_or_default();
        note.contains("shared pages only")
    };
    ensure!(notes.any(said), "{report}");
    host.unbind(&[Role::WideEdu])
}

/// Boots the bare-metal guest, which does a test.
fn passes(host: &mut Host<'_>, test: &'static str, devices: &[Role]) -> anyhow::Result<Run> {
    require(host)?;
    let run = host.boot(&guest(test, devices))?;
    run.expect("result", "pass")?;
    run.expect_status(0)?;
    let said = "gives no confidentiality";
    ensure!(
        run.output.text.contains(said),
        "ccvm does not say that it protects nothing:\n{}",
        run.tail()
    );
    Ok(run)
}

fn guest(test: &'static str, devices: &[Role]) -> Guest {
    Guest {
        devices: devices.iter().map(|role| (*role, Some(36))).collect(),
        ..Guest::new(Platform::SwProtected, Program::Payload(test))
    }
}

fn contents(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = passes(host, "gpa-range", &[])?;
    // One page there and back, and then its block of 2 MiB.
    for kind in ["shared", "private"] {
        let pages = run.converted(&format!("{kind}_pages"))?;
        ensure!(pages == 1 + 512, "ccvm counts {pages} {kind} pages");
    }
    Ok(())
}

fn device(host: &mut Host<'_>) -> anyhow::Result<()> {
    require(host)?;
    host.bind(&[Role::WideEdu])?;
    for backend in ["type1", "iommufd"] {
        host.await_fault_log()?;
        let before = host.refused_accesses(None)?;
        let guest = Guest {
            dma_backend: Some(backend),
            ..guest("gpa-range-edu", &[Role::WideEdu])
        };
        let run = host.boot(&guest)?;
        run.expect("shared_dma", "ok")?;
        run.expect("private_dma", "blocked")?;
        run.expect("shared_again_dma", "ok")?;
        run.expect("result", "pass")?;
        run.expect_status(0)?;
        let after = host.refused_accesses(None)?;
        ensure!(
            after > before,
            "{backend}: the host's IOMMU reported no fault"
        );
    }
    host.unbind(&[Role::WideEdu])
}

/// The tables are verified from outside about every second meanwhile.
fn converts_beside_dma(host: &mut Host<'_>) -> anyhow::Result<()> {
    require(host)?;
    host.bind(&[Role::WideEdu])?;
    let guest = guest("gpa-range-storm seconds=10", &[Role::WideEdu]);
    let (run, answers) = host.boot_asking(&guest, &["verify", "map", "convert"])?;
    run.expect("result", "pass")?;
    run.expect_status(0)?;
    ensure!(run.number("transfers")? > 10, "the device hardly worked");
    ensure!(run.number("conversions")? > 100, "hardly any conversion");
    for failures in ["refused", "damaged"] {
        ensure!(run.converted(failures)? == 0, "{failures}: {}", run.stats);
    }
    storm::is_clean(&answers, 3)?;
    let private = |answer: &Value| {
        let mut states = answer["map"]["states"]["extents"]
            .as_array()
            .into_iter()
            .flatten();
        states.any(|extent| extent["state"] == "private")
    };
    ensure!(
        answers.iter().any(private),
        "`ctl map` shows no private page: {answers:?}"
    );
    host.unbind(&[Role::WideEdu])
}

/// It converts no page: all of its memory stays shared, and it works as in a plain VM.
fn unmodified(host: &mut Host<'_>) -> anyhow::Result<()> {
    require(host)?;
    let guest = Guest {
        vcpus: 2,
        devices: vec![(Role::Nvme, Some(36))],
        ..Guest::debian(Platform::SwProtected, &[])
    };
    let run = disk::intact(host, Role::Nvme, &guest, Step::Facts)?;
    run.expect("cpus", "2")?;
    ensure!(run.converted("private_pages")? == 0, "{}", run.stats);
    Ok(())
}
