//! The figures that the project promises, from real runs.
#![expect(clippy::print_stdout, reason = "the figures go to standard output")]

mod block;
mod console;
mod conversion;
mod disk;
mod large;
mod net;
mod peer;
mod peers;
mod rng;
mod serving;
mod start;
mod turns;
mod vhost_user;
mod vsock;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::bed::Bed;
use crate::case::{Host, Platform};
use crate::cases::nested;
use crate::machine::HostKernel;
use crate::prepare::{Prepared, repository};
use crate::progress;

pub use peers::{Peer, figures as peers};

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Figures {
    /// Planning and checking, on this machine
    Plan,
    /// From exec to the guest's first instruction and to its init
    Start,
    /// The same of large guests
    Large,
    /// Conversions of pages
    Conversion,
    /// An assigned disk
    Disk,
    /// An emulated disk
    Block,
    /// An emulated network card
    Net,
    /// A virtio console
    Console,
    /// Random numbers of the host
    Rng,
    /// A socket between guest and host
    Vsock,
    /// A disk that a daemon of the host serves
    VhostBlock,
    /// A file system that a daemon of the host serves
    VhostFs,
    /// A network card that a daemon of the host serves
    VhostNet,
    /// Mappings by a guest's VFIO
    Mapping,
}

impl Figures {
    /// Whether they are measured beside QEMU in ccvm's place.
    #[must_use]
    pub fn have_a_peer(self) -> bool {
        matches!(
            self,
            Self::Block
                | Self::Net
                | Self::Console
                | Self::Rng
                | Self::Vsock
                | Self::VhostBlock
                | Self::VhostFs
                | Self::VhostNet
        )
    }

    /// Whether they are measured in the testbed.
    #[must_use]
    pub fn are_of_testbed(self) -> bool {
        self != Self::Plan
    }

    /// Whether they are measured on every kind of VM, whatever host it needs.
    #[must_use]
    pub fn are_of_platforms(self) -> bool {
        matches!(self, Self::Start | Self::Conversion)
    }
}

/// Prints the figures of this machine: planning and checking.
///
/// # Errors
/// When the programs do not build or do not run.
pub fn of_this_machine() -> anyhow::Result<()> {
    let plan = plan_time()?;
    let check = check_time()?;
    println!("\nOn this machine, release build");
    println!("  plan, host of 256 devices             {plan}   (goal: under 1 ms)");
    println!(
        "  ccvm check, whole process             {:.2} ms   (goal: under 10 ms)",
        check.as_secs_f64() * 1e3
    );
    Ok(())
}

/// Criterion's estimate of the plan's time.
fn plan_time() -> anyhow::Result<String> {
    let output = progress::step("measure the plan", || {
        let mut cargo = cargo();
        cargo.args(["bench", "--quiet", "--package", "vmm", "--bench", "plan"]);
        let output = cargo.output().context("cannot start cargo")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    })?;
    estimate(&output).context("criterion printed no time")
}

/// The middle of `time: [LOW EST HIGH]`.
fn estimate(output: &str) -> Option<String> {
    let (_, times) = output.split_once("time:")?;
    let words: Vec<&str> = times.split_whitespace().take(4).collect();
    Some(format!("{} {}", words.get(2)?, words.get(3)?))
}

/// The median time of `ccvm check` on the recorded host of 256 devices.
fn check_time() -> anyhow::Result<Duration> {
    const RUNS: usize = 101;
    let ccvm = progress::step("build ccvm for this machine", || {
        let mut build = cargo();
        build.args(["build", "--quiet", "--release", "--package", "ccvm"]);
        let status = build.status().context("cannot start cargo")?;
        ensure!(status.success(), "ccvm does not build");
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        Ok(target
            .unwrap_or_else(|| repository().join("target"))
            .join("release/ccvm"))
    })?;
    let fixtures = repository().join("tests/fixtures");
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut check = Command::new(&ccvm);
        check.arg("check").arg(fixtures.join("configs/farm.toml"));
        check
            .arg("--host")
            .arg(fixtures.join("hosts/farm-256.json"));
        let start = Instant::now();
        let status = check
            .stdout(Stdio::null())
            .status()
            .context("cannot start ccvm")?;
        times.push(start.elapsed());
        ensure!(status.success(), "ccvm check gave {status}");
    }
    times.sort_unstable();
    times.get(RUNS / 2).copied().context("nothing was measured")
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository());
    cargo
}

/// Prints the chosen figures of the testbed.
///
/// # Errors
/// When a guest does not run as it should.
pub fn in_testbed(prepared: &Prepared, chosen: &[Figures]) -> anyhow::Result<()> {
    let mut bed = Bed::boot(prepared)?;
    let mut host = bed.host(false);
    println!(
        "\nIn the testbed (an emulated host), Debian {}",
        prepared.guest.version
    );
    for figures in chosen {
        match figures {
            Figures::Plan => {}
            Figures::Start => start::figures(&mut host)?,
            Figures::Large => large::figures(&mut host)?,
            Figures::Conversion => conversion::figures(&mut host)?,
            Figures::Disk => disk::figures(&mut host)?,
            Figures::Block => block::figures(&mut host)?,
            Figures::Net => net::figures(&mut host)?,
            Figures::Console => console::figures(&mut host)?,
            Figures::Rng => rng::figures(&mut host)?,
            Figures::Vsock => vsock::figures(&mut host)?,
            Figures::VhostBlock => vhost_user::disk(&mut host)?,
            Figures::VhostFs => vhost_user::folder(&mut host)?,
            Figures::VhostNet => vhost_user::network(&mut host)?,
            Figures::Mapping => mappings(&mut host)?,
        }
    }
    drop(bed);
    on_pkvm(prepared, chosen)
}

/// Those of protected VMs, on a host that runs as pKVM.
fn on_pkvm(prepared: &Prepared, chosen: &[Figures]) -> anyhow::Result<()> {
    if !chosen.iter().any(|figures| figures.are_of_platforms()) {
        return Ok(());
    }
    let mut bed = Bed::boot_with(prepared, HostKernel::Protected, Vec::new())?;
    let mut host = bed.host(false);
    if chosen.contains(&Figures::Start) {
        start::launches(&mut host, &[Platform::None, Platform::Protected])?;
    }
    if chosen.contains(&Figures::Conversion) {
        conversion::figures_of_pkvm(&mut host)?;
    }
    Ok(())
}

/// Prints the chosen figures of x86_64's platforms, on a host that makes software-protected VMs.
///
/// # Errors
/// When a guest does not run as it should.
pub fn on_x86_64(
    prepared: &Prepared,
    kernel: HostKernel,
    chosen: &[Figures],
) -> anyhow::Result<()> {
    let mut bed = Bed::boot_with(prepared, kernel, Vec::new())?;
    let mut host = bed.host(false);
    if chosen.contains(&Figures::Start) {
        start::launches(&mut host, &[Platform::None, Platform::SwProtected])?;
    }
    if chosen.contains(&Figures::Conversion) {
        conversion::figures_of_sw_protected(&mut host)?;
    }
    Ok(())
}

/// MAP and UNMAP by VFIO in a guest, behind the virtual IOMMU.
fn mappings(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = nested::boot(host)?;
    run.expect("nested", "0")?;
    println!("\nVFIO in a guest, behind the virtual IOMMU: as multiples of one exit to ccvm");
    println!("                                             map      unmap");
    for (name, size) in [("4k", "4 KiB"), ("64k", "64 KiB"), ("1m", "1 MiB")] {
        let map = run.fact(&format!("map_{name}_exits"))?;
        let unmap = run.fact(&format!("unmap_{name}_exits"))?;
        println!("  {size:36} {map:>9} {unmap:>10}");
    }
    println!(
        "  one exit                             {:>9} µs",
        run.number("exit_ns")? / 1000
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_criterions_three_times_is_the_estimate() {
        let output = "plan/farm  time:   [410.11 µs 412.03 µs 414.20 µs]\n change: ...";
        assert_eq!(estimate(output).as_deref(), Some("412.03 µs"));
    }
}
