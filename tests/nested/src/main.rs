//! Programs of the guest's. The first takes an edu device by VFIO, as a VMM or a userspace driver would,
//! lets it copy some memory, and measures what mapping costs.
//!
//! ```text
//!   this program ─ VFIO ─► guest kernel ─ virtio-iommu ─► ccvm ─ VFIO ─► host kernel ─► IOMMU
//! ```
//! The others are the two ends of a socket between guest and host, what starts a VMM with a tap interface, and
//! those that measure how fast files and connections are.
//!
//! They report `key=value` lines on standard output; times are medians in nanoseconds.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the facts go to standard output")]

mod edu;
mod exits;
mod memory;
mod peer;
mod rate;
mod sockets;
mod tap;
mod timing;

use std::env;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure};
use iommu::{Access, DmaTable, Gpa, Iova, PageRange};
use vfio::{Backend, BackendKind, Container, Function, PinnedTable, Sysfs};

use crate::edu::Edu;
use crate::exits::VirtioFunction;
use crate::memory::Memory;

/// Where memory is mapped, for a device of 28 bits too.
const IOVA: u64 = 0x200_0000;
const PAGE: u64 = iommu::PAGE_SIZE;

/// How often each thing is measured, after it was done as often without being measured: under emulation
/// the first rounds are spent on translating code.
const ROUNDS: usize = 301;

type Table = PinnedTable<vm_memory::GuestMemoryMmap>;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["vsock-echo", port] => sockets::echo(port.parse()?),
        ["vsock-send", cid, port] => sockets::send(cid.parse()?, port.parse()?),
        ["rate", name, way, path, bytes] => rate::of_file(name, way.parse()?, path, bytes.parse()?),
        ["peer", place] => peer::serve(place),
        ["measure-peer", place] => peer::measure(place),
        ["with-tap", name, number, ref command @ ..] => tap::exec(name, number.parse()?, command),
        [address] => drive(address),
        _ => bail!(
            "usage: nested ADDRESS | vsock-echo PORT | vsock-send CID PORT | peer WHERE | \
             measure-peer WHERE | rate NAME read|write FILE BYTES | with-tap NAME FD COMMAND..."
        ),
    }
}

/// Drives the edu device at a PCI address.
fn drive(address: &str) -> anyhow::Result<()> {
    let memory = Memory::new()?;
    let container = Backend::open(BackendKind::Type1)?.container()?;
    let sysfs = Sysfs::new(format!("/sys/bus/pci/devices/{address}"));
    let function = Function::open(&container, &sysfs)?;
    let mut table = PinnedTable::new(container.clone(), Arc::clone(memory.backend()));
    tell_ranges(&container);
    let edu = Edu::new(function)?;
    copies(&edu, &memory, &mut table)?;
    figures(&mut table)
}

fn tell_ranges(container: &Container) {
    let ranges = container.iova_ranges().unwrap_or_default();
    let last = ranges.last().map_or(0, |range| *range.end());
    println!("iova_ranges={} iova_last={last:#x}", ranges.len());
}

/// The device copies a page of this program's memory to another one by way of its own buffer, and
/// reaches neither once they are unmapped.
fn copies(edu: &Edu, memory: &Memory, table: &mut Table) -> anyhow::Result<()> {
    let (from, to) = (0, PAGE);
    memory.fill(from, edu::BYTES, |index| index.wrapping_mul(37))?;
    map(table, 0, from, PAGE)?;
    map(table, PAGE, to, PAGE)?;
    edu.read(IOVA)?;
    edu.write(IOVA + PAGE)?;
    let copied = memory.bytes(from, edu::BYTES)? == memory.bytes(to, edu::BYTES)?;
    println!("mapped_dma={}", if copied { "ok" } else { "wrong" });
    unmap(table, 0, 2 * PAGE)?;
    memory.fill(to, edu::BYTES, |_| 0)?;
    // The host's IOMMU refuses this: the memory stays as it is.
    edu.write(IOVA + PAGE)?;
    // Those who report it are busy for a while.
    thread::sleep(Duration::from_secs(2));
    let untouched = memory.bytes(to, edu::BYTES)?.iter().all(|byte| *byte == 0);
    println!(
        "unmapped_dma={}",
        if untouched { "blocked" } else { "reached" }
    );
    ensure!(copied && untouched, "the device copied wrongly");
    Ok(())
}

/// What one exit to ccvm costs, and mapping and unmapping so many bytes as a multiple of that.
fn figures(table: &mut Table) -> anyhow::Result<()> {
    let trapped = VirtioFunction::find()?;
    timing::median(ROUNDS, || trapped.read())?;
    let exit = timing::median(ROUNDS, || trapped.read())?;
    println!("exit_ns={}", exit.as_nanos());
    for (name, bytes) in [("4k", 4 << 10), ("64k", 64 << 10), ("1m", 1 << 20)] {
        for _ in 0..ROUNDS {
            map(table, 0, 0, bytes)?;
            unmap(table, 0, bytes)?;
        }
        let (mut maps, mut unmaps) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            maps.push(timing::of(|| map(table, 0, 0, bytes))?);
            unmaps.push(timing::of(|| unmap(table, 0, bytes))?);
        }
        for (what, times) in [("map", maps), ("unmap", unmaps)] {
            let time = timing::median_of(times)?;
            let exits = time.as_secs_f64() / exit.as_secs_f64();
            println!(
                "{what}_{name}_ns={} {what}_{name}_exits={exits:.2}",
                time.as_nanos()
            );
        }
    }
    Ok(())
}

fn map(table: &mut Table, offset: u64, memory: u64, bytes: u64) -> anyhow::Result<()> {
    let iova = PageRange::new(Iova::new(IOVA + offset), bytes)?;
    Ok(table.map(iova, Gpa::new(memory), Access::ReadWrite)?)
}

fn unmap(table: &mut Table, offset: u64, bytes: u64) -> anyhow::Result<()> {
    let iova = PageRange::new(Iova::new(IOVA + offset), bytes)?;
    Ok(table.unmap(iova)?)
}
