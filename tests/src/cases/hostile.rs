//! A guest that asks its IOMMU for what it must not get, and what its device reaches meanwhile.

use anyhow::ensure;

use crate::arch::{Arch, EVERY};
use crate::case::{Case, Guest, GuestIommu, Host, Platform, Run};
use crate::devices::Role;
use crate::guest::Program;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "bad_requests_and_rings_get_their_status_and_do_no_harm",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: |host| in_each(host, "hostile", &[]).map(drop),
    },
    Case {
        name: "a_device_reaches_what_the_guest_maps_and_only_as_long_as_it_is_shared",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: translation,
    },
    Case {
        name: "a_guest_that_maps_without_end_meets_a_limit",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: limit,
    },
];

/// What ccvm may use beyond the guest's memory, whatever the guest does. Of a program built for tests up to 10 MiB
/// are resident, more or less of it as the host's page cache has it.
const OWN_MEMORY: u64 = 16 << 20;

/// Runs a test in a plain VM and, on arm64, in a Realm, whose run is the last.
fn in_each(host: &mut Host<'_>, test: &'static str, facts: &[(&str, &str)]) -> anyhow::Result<Run> {
    let arch = host.arch;
    let mut run_as = |platform| {
        let run = boot(host, platform, test)?;
        expect_all(&run, facts)?;
        let own = run.stats["own_memory_bytes"].as_u64().unwrap_or(u64::MAX);
        ensure!(own < OWN_MEMORY, "ccvm uses {own} bytes of its own");
        Ok(run)
    };
    let plain = run_as(Platform::None)?;
    match Platform::hardest(arch) {
        Platform::None => Ok(plain),
        confidential => run_as(confidential),
    }
}

/// What a guest finds that maps, and unmaps.
const MAPPED: [(&str, &str); 5] = [
    ("mapped", "reached"),
    ("read_only", "kept"),
    ("fault", "reported"),
    ("unmapped", "blocked"),
    ("detached", "blocked"),
];

/// What it finds besides where pages change their state.
const CONVERTED: [(&str, &str); 3] = [
    ("private", "blocked"),
    ("mapping", "stays"),
    ("shared_again", "reached"),
];

fn translation(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = in_each(host, "translation", &MAPPED)?;
    if host.arch != Arch::Arm64 {
        return Ok(());
    }
    expect_all(&run, &CONVERTED)
}

/// In a VM of a kind whose pages change their state.
pub(super) fn translation_and_conversion(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = boot(host, Platform::converting(host.arch), "translation")?;
    expect_all(&run, &MAPPED)?;
    expect_all(&run, &CONVERTED)
}

fn expect_all(run: &Run, facts: &[(&str, &str)]) -> anyhow::Result<()> {
    facts
        .iter()
        .try_for_each(|(key, value)| run.expect(key, value))
}

/// As many mappings as the host's kernel allows: the guest is told that there is no room.
fn limit(host: &mut Host<'_>) -> anyhow::Result<()> {
    const PARAMETER: &str = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    const LIMIT: u64 = 2000;
    host.bind(&[Role::WideEdu])?;
    let before = host.machine.read(&format!("cat {PARAMETER}"))?;
    let set = |limit: &str| format!("echo {limit} >{PARAMETER}");
    host.machine.read(&set(&LIMIT.to_string()))?;
    let run = boot(host, Platform::hardest(host.arch), "exhaust");
    host.machine.read(&set(&before))?;
    let mappings = run?.number("mappings")?;
    ensure!(
        (LIMIT / 2..=LIMIT).contains(&mappings),
        "{mappings} mappings where the host allows {LIMIT}"
    );
    Ok(())
}

fn boot(host: &mut Host<'_>, platform: Platform, test: &'static str) -> anyhow::Result<Run> {
    host.bind(&[Role::WideEdu])?;
    let run = host.boot(&Guest {
        vcpus: 2,
        iommu: GuestIommu::PassedThrough,
        devices: vec![(Role::WideEdu, Some(36))],
        ..Guest::new(platform, Program::Payload(test))
    })?;
    run.expect("result", "pass")?;
    run.expect_status(0)?;
    Ok(run)
}
