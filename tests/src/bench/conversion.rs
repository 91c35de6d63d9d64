//! What a conversion costs, by its size and by the number of assigned devices, beside a bare loop of
//! the same host calls.
#![expect(clippy::print_stdout, reason = "the figures go to standard output")]

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use crate::case::{Guest, Host, Platform, Run, within};
use crate::devices::Role;
use crate::guest::Program;
use crate::machine::Script;

/// In the order in which they are added.
const DEVICES: [Role; 4] = [Role::WideEdu, Role::Nvme, Role::Ahci, Role::Nic];
const SIZES: [(&str, &str); 3] = [("4k", "4 KiB"), ("2m", "2 MiB"), ("1g", "1 GiB")];
/// A width that all of them are taken to have.
const BITS: u8 = 36;

/// Prints those of an emulated Realm.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    println!("\nConversion of one extent in an emulated Realm");
    beside_floor(host, Platform::Realm)
}

/// Prints those of a software-protected VM: its guest calls KVM, which hands each call on.
pub(super) fn figures_of_sw_protected(host: &mut Host<'_>) -> anyhow::Result<()> {
    println!("\nConversion of one extent in a software-protected VM");
    beside_floor(host, Platform::SwProtected)
}

/// As the guest sees it, and the same kernel calls in a bare loop, in one run of the host.
fn beside_floor(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<()> {
    host.bind(&DEVICES)?;
    println!("As the guest sees it, and the same kernel calls in a bare loop");
    println!("                           share     floor   unshare     floor   a second     floor");
    for count in [0, 1, 4] {
        let devices = DEVICES.get(..count).unwrap_or_default();
        let guest = guest(host, platform, devices)?;
        let floor = floor(host, platform, devices)?;
        let exit = guest.number("exit_us")?;
        println!("  {count} devices; a call that does nothing takes {exit} µs");
        for (key, size) in SIZES {
            let line = Line::of(key, &guest, &floor)?;
            println!("    {size:16} {line}");
        }
        host_calls(&guest)?;
    }
    host.unbind(&DEVICES)
}

/// Prints those of a protected VM, on a host that runs as pKVM: its guest asks the hypervisor, page by
/// page, and ccvm hears nothing of it.
pub(super) fn figures_of_pkvm(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&Guest {
        memory: "512 MiB".to_owned(),
        ..Guest::new(Platform::Protected, Program::Payload("convert-bench"))
    })?;
    run.expect("result", "pass")?;
    println!("\nConversion of one extent in a protected VM of pKVM, as the guest sees it");
    println!("                                    share   unshare");
    let exit = run.number("exit_us")?;
    println!("  a call that does nothing takes {exit} µs");
    for (key, size) in SIZES.iter().take(2) {
        let share = run.number(&format!("share_{key}_us"))?;
        let unshare = run.number(&format!("unshare_{key}_us"))?;
        println!("    {size:28} {share:>7} µs{unshare:>7} µs");
    }
    Ok(())
}

/// One size, by the guest and by the bare loop.
#[derive(Debug, PartialEq)]
struct Line {
    guest: Times,
    floor: Times,
}

/// Microseconds.
#[derive(Debug, PartialEq)]
struct Times {
    share: u64,
    unshare: u64,
}

impl Times {
    /// How many conversions a second there are, of which every other one shares: with tenths where there are few.
    fn a_second(&self) -> String {
        let tenths = 20_000_000 / (self.share + self.unshare).max(1);
        match tenths {
            0..100 => format!("{}.{}", tenths / 10, tenths % 10),
            _ => (tenths / 10).to_string(),
        }
    }
}

impl Line {
    fn of(key: &str, guest: &Run, floor: &BTreeMap<String, u64>) -> anyhow::Result<Self> {
        let of_floor = |what: &str| {
            let key = format!("{what}_{key}_us");
            floor
                .get(&key)
                .copied()
                .with_context(|| format!("the bare loop has no {key}"))
        };
        let of_guest = |what: &str| guest.number(&format!("{what}_{key}_us"));
        Ok(Self {
            guest: Times {
                share: of_guest("share")?,
                unshare: of_guest("unshare")?,
            },
            floor: Times {
                share: of_floor("share")?,
                unshare: of_floor("unshare")?,
            },
        })
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { guest, floor } = self;
        let times = [guest.share, floor.share, guest.unshare, floor.unshare];
        times.iter().try_for_each(|us| write!(f, "{us:>7} µs"))?;
        write!(f, "{:>11}{:>10}", guest.a_second(), floor.a_second())
    }
}

/// Conversions by the bare-metal guest. Its devices are behind containers of type1, as the bare loop's are.
fn guest(host: &mut Host<'_>, platform: Platform, devices: &[Role]) -> anyhow::Result<Run> {
    let run = host.boot(&Guest {
        memory: "3072 MiB".to_owned(),
        devices: devices.iter().map(|role| (*role, Some(BITS))).collect(),
        dma_backend: Some("type1"),
        ..Guest::new(platform, Program::Payload("convert-bench"))
    })?;
    run.expect("result", "pass")?;
    Ok(run)
}

/// The same calls by a program that does nothing else.
fn floor(
    host: &mut Host<'_>,
    platform: Platform,
    devices: &[Role],
) -> anyhow::Result<BTreeMap<String, u64>> {
    let kind = match platform {
        Platform::SwProtected => "private".to_owned(),
        _ => (BITS - 1).to_string(),
    };
    let mut groups = String::new();
    for role in devices {
        let address = host.address(*role)?;
        let link = format!("readlink /sys/bus/pci/devices/{address}/iommu_group");
        let group = host.machine.read(&link)?;
        groups = groups + " " + group.rsplit('/').next().unwrap_or_default();
    }
    let command = format!("{}/floor {kind}{groups}", host.files);
    let output = host.machine.run(&Script::boot(within(200, &command)))?;
    ensure!(output.status == 0, "the bare loop: {}", output.text);
    Ok(figures_in(&output.text))
}

/// The `key=number` lines of a program.
fn figures_in(text: &str) -> BTreeMap<String, u64> {
    let figures = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    });
    figures.collect()
}

/// How many calls all the conversions of a run took.
fn host_calls(run: &Run) -> anyhow::Result<()> {
    let shared = run.converted("shared_extents")?;
    let private = run.converted("private_extents")?;
    let (maps, unmaps) = (run.converted("dma_maps")?, run.converted("dma_unmaps")?);
    println!(
        "    DMA table calls: {maps} for {shared} extents shared, {unmaps} for {private} made private"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_there_and_one_back_are_two() {
        let times = |share, unshare| Times { share, unshare };
        assert_eq!(times(300, 100).a_second(), "5000");
        assert_eq!(times(0, 0).a_second(), "2000000");
        assert_eq!(times(4_000_000, 1_000_000).a_second(), "0.4");
    }

    #[test]
    fn what_the_bare_loop_prints_is_read() {
        let figures = figures_in("share_4k_us=168\r\nnoise\nunshare_4k_us=147\nx=y\n");
        assert_eq!(figures["share_4k_us"], 168);
        assert_eq!(figures["unshare_4k_us"], 147);
        assert_eq!(figures.len(), 2);
    }
}
