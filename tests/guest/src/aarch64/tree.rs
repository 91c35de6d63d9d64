//! What the device tree says.

use hermit_dtb::Dtb;

use super::smccc::Conduit;
use crate::machine::{MOST_DRAM, Machine, Range};
use crate::rsi;

/// Reads the tree; `image` is where this program is.
pub(super) fn machine<'a>(tree: &Dtb<'a>, image: u64) -> Machine<'a> {
    let mut dram = [Range::default(); MOST_DRAM];
    let memory = tree
        .enum_subnodes("/")
        .filter(|name| name.starts_with("memory@"));
    for (range, node) in dram.iter_mut().zip(memory) {
        let reg = tree.get_property(node_path(&mut [0; 64], node), "reg");
        *range = reg.and_then(|reg| from_cells(reg, 0)).unwrap_or_default();
    }
    let range = |path| from_cells(tree.get_property(path, "reg")?, 0);
    let text = |path, name| {
        let bytes: &'a [u8] = tree.get_property(path, name)?;
        core::str::from_utf8(bytes.strip_suffix(&[0])?).ok()
    };
    let conduit = match text("/psci", "method") {
        Some("smc") => Conduit::Smc,
        _ => Conduit::Hvc,
    };
    let ranges = tree.get_property("/pcie@", "ranges").unwrap_or_default();
    Machine {
        cmdline: text("/chosen", "bootargs").unwrap_or_default(),
        platform: conduit,
        realm: rsi::Realm::find(conduit),
        ecam: range("/pcie@"),
        window: memory_window(ranges, MEMORY_32),
        window_64: memory_window(ranges, MEMORY_64),
        second_processor: second_processor(tree),
        image,
        registers: range("/serial@").unwrap_or_default(),
        // Devices and memory begin higher up.
        nowhere: 0,
        dram,
    }
}

fn from_cells(cells: &[u8], at: usize) -> Option<Range> {
    let start = number(cells, at, 2)?;
    Some(Range {
        start,
        end: start.checked_add(number(cells, at + 2, 2)?)?,
    })
}

fn second_processor(tree: &Dtb<'_>) -> Option<u64> {
    let mut processors = tree
        .enum_subnodes("/cpus")
        .filter(|name| name.starts_with("cpu@"));
    let second = processors.nth(1)?;
    let (_, number) = second.split_once('@')?;
    // A unit address is the `reg` of its node.
    u64::from_str_radix(number, 16).ok()
}

/// Kinds of PCI windows.
const MEMORY_32: u64 = 2 << 24;
const MEMORY_64: u64 = 3 << 24;

/// The first memory window of a kind in a PCI root's `ranges`: seven cells each.
fn memory_window(ranges: &[u8], kind: u64) -> Option<Range> {
    const SPACE: u64 = 3 << 24;
    let mut entries = ranges.chunks_exact(28);
    let entry =
        entries.find(|entry| number(entry, 0, 1).is_some_and(|space| space & SPACE == kind))?;
    from_cells(entry, 3)
}

/// The number in `count` cells from cell `at` on.
fn number(cells: &[u8], at: usize, count: usize) -> Option<u64> {
    let bytes = cells.get(at * 4..(at + count) * 4)?;
    Some(
        bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

/// `/` and the name of a node.
fn node_path<'b>(buffer: &'b mut [u8; 64], name: &str) -> &'b str {
    let end = (name.len() + 1).min(buffer.len());
    buffer[0] = b'/';
    buffer[1..end].copy_from_slice(&name.as_bytes()[..end - 1]);
    core::str::from_utf8(&buffer[..end]).unwrap_or_default()
}
