//! A guest that converts its memory at random on two vCPUs while a disk does DMA to pages between.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::ARM64;
use crate::case::{Case, Guest, Host, Platform, Run, Skip};
use crate::devices::Role;
use crate::guest::Program;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_disk_loses_no_byte_while_two_vcpus_convert_the_memory_around_its_buffers",
        on: ARM64,
        needs: &[Role::Nvme],
        run: |host| storm(host, "storm seconds=60").map(drop),
    },
    Case {
        name: "an_accepted_disk_loses_no_byte_in_a_storm_of_conversions",
        on: ARM64,
        needs: &[Role::Nvme],
        run: |host| storm(host, "storm seconds=20 accept=yes")?.expect("accepted", "yes"),
    },
];

/// What ccvm may use beyond the guest's memory, whatever the guest does.
const OWN_MEMORY: u64 = 8 << 20;
/// By how much that may differ between the beginning of a storm and its end.
const GROWTH: u64 = 1 << 20;

fn storm(host: &mut Host<'_>, test: &'static str) -> anyhow::Result<Run> {
    if !host.is_scratch(Role::Nvme)? {
        return Err(Skip("the disk's content must not be destroyed".to_owned()).into());
    }
    host.bind(&[Role::Nvme])?;
    let guest = Guest {
        vcpus: 2,
        devices: vec![(Role::Nvme, Some(36))],
        ..Guest::new(Platform::Realm, Program::Payload(test))
    };
    let (run, answers) = host.boot_asking(&guest, &["verify", "status"])?;
    run.expect("result", "pass")?;
    run.expect("disk", "yes")?;
    run.expect_status(0)?;
    ensure!(run.number("transfers")? > 100, "the disk hardly worked");
    for worker in ["first", "second"] {
        let conversions = run.number(&format!("{worker}_conversions"))?;
        ensure!(conversions > 100, "the {worker} vCPU hardly converted");
    }
    for failures in ["refused", "damaged"] {
        ensure!(run.converted(failures)? == 0, "{failures}: {}", run.stats);
    }
    is_clean(&answers, 10)?;
    is_flat(&answers)?;
    Ok(run)
}

/// Each time that somebody looked, which was so often, every table was what it must be.
pub(super) fn is_clean(answers: &[Value], times: usize) -> anyhow::Result<()> {
    let verified: Vec<&Value> = answers
        .iter()
        .map(|answer| &answer["verify"])
        .filter(|verification| !verification.is_null())
        .collect();
    ensure!(
        verified.len() >= times,
        "the tables were verified {} times: {answers:?}",
        verified.len()
    );
    match verified
        .iter()
        .find(|verification| verification["clean"] != true)
    {
        Some(verification) => anyhow::bail!("a table is wrong: {verification}"),
        None => Ok(()),
    }
}

/// ccvm's own memory does not grow with what the guest does.
fn is_flat(answers: &[Value]) -> anyhow::Result<()> {
    let sizes = answers
        .iter()
        .filter_map(|answer| answer["status"]["own_memory_bytes"].as_u64());
    let sizes: Vec<u64> = sizes.collect();
    let third = sizes.len() / 3;
    let most = |sizes: Option<&[u64]>| sizes.and_then(|sizes| sizes.iter().max().copied());
    let first = most(sizes.get(..third)).context("ccvm does not tell its memory")?;
    let last = most(sizes.get(sizes.len() - third..)).context("ccvm does not tell its memory")?;
    ensure!(
        last <= first + GROWTH && last <= OWN_MEMORY,
        "ccvm's own memory grows: {sizes:?}"
    );
    Ok(())
}
