//! QEMU's edu device, driven by the bare-metal guest: reach and isolation, to the page.

use anyhow::{Context as _, ensure};

use crate::arch::{ARM64, X86_64};
use crate::case::{Case, Guest, Host, Platform, Run, in_one_line};
use crate::devices::Role;
use crate::guest::Program;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_device_of_28_bits_is_refused_by_check_and_by_run",
        on: ARM64,
        needs: &[Role::NarrowEdu],
        run: too_narrow,
    },
    Case {
        name: "a_device_of_36_bits_reaches_the_highest_page_of_a_vm_that_fills_its_space",
        on: ARM64,
        needs: &[Role::WideEdu],
        run: highest_page,
    },
    Case {
        name: "a_page_that_is_private_again_is_out_of_the_devices_reach",
        on: ARM64,
        needs: &[Role::WideEdu],
        run: private_again,
    },
    Case {
        name: "a_device_of_36_bits_reaches_the_highest_page_of_a_vm_beyond_the_hole_below_4_gib",
        on: X86_64,
        needs: &[Role::WideEdu],
        run: beyond_the_hole,
    },
];

/// The operator's word on the wide device: the device table knows edu with its default mask only.
const WIDE: u8 = 36;

fn too_narrow(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::NarrowEdu])?;
    let guest = Guest {
        devices: vec![(Role::NarrowEdu, None)],
        ..Guest::new(Platform::Realm, Program::Payload("facts"))
    };
    let (status, report) = host.check(&guest)?;
    ensure!(
        status == 1 && report["verdict"] == "rejected",
        "{status}: {report}"
    );
    let address = host.address(Role::NarrowEdu)?;
    let refusal = report["diagnostics"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["device"] == address.as_str()))
        .with_context(|| format!("no diagnostic names {address}: {report}"))?;
    ensure!(refusal["code"] == "CCVM0103", "{refusal}");
    let message = refusal["message"].as_str().context("no message")?;
    let run = host.boot(&guest)?;
    run.expect_status(1)?;
    ensure!(
        run.output.text.contains("CCVM0103"),
        "another code:\n{}",
        run.tail()
    );
    let said = in_one_line(&run.output.text);
    ensure!(
        said.contains(&in_one_line(message)),
        "another message:\n{}",
        run.tail()
    );
    ensure!(
        !run.facts.contains_key("realm"),
        "the guest ran:\n{}",
        run.tail()
    );
    Ok(())
}

fn highest_page(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let guest = |memory: u64| Guest {
        memory: format!("{} MiB", memory >> 20),
        devices: vec![(Role::WideEdu, Some(WIDE))],
        ..Guest::new(Platform::Realm, Program::Payload("edu-highest-page"))
    };
    let (_, small) = host.check(&guest(256 << 20))?;
    let largest = small["max_memory"]
        .as_u64()
        .with_context(|| format!("no maximum: {small}"))?;
    ensure!(
        largest > 16 << 30,
        "36 bits have room for more than {largest} bytes"
    );
    host.expect_plan(&guest(largest), WIDE, Role::WideEdu)?;
    let (status, _) = host.check(&guest(largest + (2 << 20)))?;
    ensure!(status == 1, "2 MiB more than the maximum are accepted");
    let run = host.boot(&guest(largest))?;
    run.expect("ipa_bits", "36")?;
    run.expect("result", "pass")?;
    let address = dma_address(&run)?;
    ensure!(
        address >> (WIDE - 1) == 1,
        "{address:#x} has not the shared bit on top"
    );
    // Only the last 2 MiB of the space may be left unused.
    ensure!(
        address >= (1 << WIDE) - (2 << 20),
        "{address:#x} is not the top of the space"
    );
    run.expect_status(0)
}

/// So much memory that some of it is above 4 GiB, and all of it pinned.
fn beyond_the_hole(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let run = host.boot(&Guest {
        memory: "3200 MiB".to_owned(),
        devices: vec![(Role::WideEdu, Some(WIDE))],
        ..Guest::new(Platform::None, Program::Payload("edu-highest-page"))
    })?;
    run.expect("result", "pass")?;
    ensure!(
        dma_address(&run)? > 4 << 30,
        "no memory is above 4 GiB:\n{}",
        run.tail()
    );
    run.expect_status(0)
}

fn dma_address(run: &Run) -> anyhow::Result<u64> {
    let address = run.fact("dma_address")?.trim_start_matches("0x");
    u64::from_str_radix(address, 16).context("the DMA address is no number")
}

fn private_again(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    host.await_fault_log()?;
    let before = host.refused_accesses(None)?;
    let run = host.boot(&Guest {
        devices: vec![(Role::WideEdu, Some(WIDE))],
        ..Guest::new(Platform::Realm, Program::Payload("edu-private-again"))
    })?;
    run.expect("shared_dma", "ok")?;
    run.expect("private_dma", "blocked")?;
    run.expect("shared_again_dma", "ok")?;
    run.expect("result", "pass")?;
    run.expect_status(0)?;
    let after = host.refused_accesses(None)?;
    ensure!(after > before, "the host's IOMMU reported no fault");
    Ok(())
}
