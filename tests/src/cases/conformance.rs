//! The conformance suite: one table of what every platform must do, and of what one cannot and why.
//!
//! ```text
//! row     what must be true, and the test of it
//! column  a platform
//! cell    Runs, or the reason why there is nothing to run: each is a case with a name of its own
//! ```
//! The payload (`tests/guest/src/tests/conformance.rs`) does the guest's part, the same for every platform that
//! starts it; an unmodified Debian does where the platform does not.

mod host_access;
mod life;
#[cfg(test)]
mod page;
mod table;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::{ARM64, Arch, EVERY, X86_64};
use crate::case::{Cannot, Case, Guest, Host, Platform, Run, Skip};
use crate::devices::Role;
use crate::guest::{Program, Step};
use table::ROWS;

/// Something that every platform must do.
#[derive(Debug)]
struct Row {
    #[cfg(test)]
    name: &'static str,
    #[cfg(test)]
    means: &'static str,
    needs: &'static [Role],
    /// One for each platform.
    cells: &'static [Cell],
}

/// A row on a platform.
#[derive(Debug)]
struct Cell {
    case: &'static str,
    platform: Platform,
    can: Can,
    run: fn(&mut Host<'_>) -> anyhow::Result<()>,
}

/// Whether a platform can do what a row asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Can {
    /// It does, wherever the platform is.
    Runs,
    /// It does; no testbed has the platform, for this reason.
    OnHardware(&'static str),
    /// It cannot, for this reason.
    Not(&'static str),
}

/// A row's test.
type Test = fn(&mut Host<'_>, Platform) -> anyhow::Result<()>;

/// Where the cases of a platform run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// On the distribution's kernel.
    Distribution,
    /// On a kernel of our own.
    Own,
    /// On a host that runs as pKVM.
    Pkvm,
}

impl Home {
    const fn of(platform: Platform) -> Self {
        match platform {
            Platform::None | Platform::Realm | Platform::Cca | Platform::Snp | Platform::Tdx => {
                Self::Distribution
            }
            Platform::SwProtected => Self::Own,
            Platform::Protected => Self::Pkvm,
        }
    }
}

/// The architectures that have a platform.
const fn architectures(platform: Platform) -> &'static [Arch] {
    match platform {
        Platform::None => EVERY,
        Platform::Realm | Platform::Protected | Platform::Cca => ARM64,
        Platform::SwProtected | Platform::Snp | Platform::Tdx => X86_64,
    }
}

/// The cases of the platforms that are at home on a kernel: one for each cell.
pub(super) fn cases(home: Home) -> Vec<Case> {
    let cells = ROWS
        .iter()
        .flat_map(|row| row.cells.iter().map(move |cell| (row, cell)));
    let cells = cells.filter(|(_, cell)| Home::of(cell.platform) == home);
    let case = |(row, cell): (&Row, &Cell)| Case {
        name: cell.case,
        on: architectures(cell.platform),
        needs: match cell.can {
            Can::Not(_) => &[],
            Can::Runs | Can::OnHardware(_) => row.needs,
        },
        run: cell.run,
    };
    cells.map(case).collect()
}

/// Runs a cell's test, where the host has the platform. `means` is what is true when it passes.
fn attempt(
    host: &mut Host<'_>,
    (platform, can): (Platform, Can),
    means: &'static str,
    test: Test,
) -> anyhow::Result<()> {
    match can {
        Can::Not(reason) => return Err(Cannot(reason).into()),
        Can::OnHardware(reason) if !offers(host, platform)? => return Err(Cannot(reason).into()),
        Can::Runs | Can::OnHardware(_) => {}
    }
    if !offers(host, platform)? {
        let reason = format!("the host does not offer {}", platform.name());
        return Err(Skip(reason).into());
    }
    test(host, platform).with_context(|| format!("not so on {}: {means}", platform.name()))
}

/// Whether the host can launch VMs of this kind.
fn offers(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<bool> {
    let output = host.ccvm("host --json")?;
    let facts: Value = serde_json::from_str(&output.text).context("ccvm host printed no JSON")?;
    let mut offered = facts["kvm"]["platforms"].as_array().into_iter().flatten();
    Ok(offered.any(|offered| offered == platform.name()))
}

/// What the payload takes a platform for.
const fn isolation(platform: Platform) -> &'static str {
    match platform {
        Platform::Realm | Platform::Cca => "realm",
        Platform::None
        | Platform::Protected
        | Platform::SwProtected
        | Platform::Snp
        | Platform::Tdx => platform.name(),
    }
}

/// Bytes of each guest.
const MEMORY: u64 = 128 << 20;

/// A guest with two processors that does its part of a row.
fn guest(platform: Platform, part: &'static str) -> Guest {
    Guest {
        vcpus: 2,
        memory: format!("{} MiB", MEMORY >> 20),
        ..Guest::new(platform, Program::Payload(part))
    }
}

/// The same with a device. pKVM keeps none from private memory: the config has to say that it knows.
fn guest_with_device(platform: Platform, part: &'static str) -> Guest {
    /// The operator's word on the device, of which the device table knows the default mask only.
    const WIDE: u8 = 36;
    let given_up = platform == Platform::Protected;
    Guest {
        devices: vec![(Role::WideEdu, Some(WIDE))],
        pkvm_device_dma: given_up.then_some("not-isolated"),
        ..guest(platform, part)
    }
}

/// Boots a guest, which must pass on the platform that it was to be on.
fn passes(host: &mut Host<'_>, guest: &Guest) -> anyhow::Result<Run> {
    let run = host.boot(guest)?;
    run.expect("isolation", isolation(guest.platform))?;
    run.expect("result", "pass")?;
    run.expect_status(0)?;
    Ok(run)
}

fn launch(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    if platform == Platform::Snp {
        return launch_as_snp(host);
    }
    /// What firmware tables and such may take of it.
    const TAKEN: u64 = 1 << 20;
    let run = passes(host, &guest(platform, "conformance row=launch"))?;
    let memory = run.number("memory")?;
    ensure!(
        (MEMORY - TAKEN..=MEMORY).contains(&memory),
        "the guest has {memory} bytes of memory"
    );
    Ok(())
}

fn private_access(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    passes(host, &guest(platform, "conformance row=private-access")).map(drop)
}

fn shared_access(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    passes(host, &guest(platform, "conformance row=shared-access")).map(drop)
}

fn pages(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    passes(host, &guest(platform, "conformance row=pages")).map(drop)
}

fn extents(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    passes(host, &guest(platform, "conformance row=extents")).map(drop)
}

fn all_memory(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    let run = passes(host, &guest(platform, "conformance row=all"))?;
    is_most(&run)
}

/// An unmodified Debian in place of the payload.
fn launch_as_snp(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&Guest {
        vcpus: 2,
        ..Guest::debian(Platform::Snp, &[Step::Facts])
    })?;
    run.expect("encryption", "AMD,SEV,SEV-ES,SEV-SNP")?;
    run.expect("cpus", "2")?;
    let memory = run.number("memory_kib")?;
    ensure!(
        (400_000..=524_288).contains(&memory),
        "a guest of 512 MiB has {memory} KiB"
    );
    run.expect("end", "poweroff")?;
    run.expect_status(0)
}

/// Some is left for the payload, and for what the loader has put beside it.
fn is_most(run: &Run) -> anyhow::Result<()> {
    let converted = run.number("converted_bytes")?;
    ensure!(
        converted > MEMORY / 4,
        "only {converted} bytes were converted"
    );
    Ok(())
}

fn race(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    passes(host, &guest(platform, "conformance row=race")).map(drop)
}

fn device(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let run = passes(host, &guest_with_device(platform, "conformance row=device"))?;
    is_most(&run)
}

fn device_private(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let guest = guest_with_device(platform, "conformance row=device-private");
    passes(host, &guest)?.expect("private_dma", "blocked")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_a_cell_for_every_platform() {
        for row in ROWS {
            let platforms: Vec<&str> = row.cells.iter().map(|cell| cell.platform.name()).collect();
            assert_eq!(
                platforms,
                table::PLATFORMS.map(Platform::name),
                "{}",
                row.name
            );
            for cell in row.cells {
                assert!(cell.case.contains(row.name), "{}", cell.case);
            }
        }
    }

    #[test]
    fn every_cell_is_a_case_on_one_kernel() {
        let homes = [Home::Distribution, Home::Own, Home::Pkvm];
        let names: Vec<&str> = homes
            .into_iter()
            .flat_map(cases)
            .map(|case| case.name)
            .collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), ROWS.len() * table::PLATFORMS.len());
        assert_eq!(names.len(), distinct.len());
    }
}
