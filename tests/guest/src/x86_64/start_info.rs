//! What PVH hands over (include/xen/interface/hvm/start_info.h of Linux).

use super::{acpi, mmio};
use crate::machine::{MOST_DRAM, Machine, Range};

const MAGIC: u32 = 0x336e_c578;
const CMDLINE: u64 = 24;
const RSDP: u64 = 32;
const MEMORY_MAP: u64 = 40;
const MEMORY_MAP_ENTRIES: u64 = 48;
/// Bytes of an entry of the memory map, and the kind that is memory.
const ENTRY: u64 = 24;
const MEMORY: u32 = 1;
/// No command line is longer.
const LONGEST: usize = 4096;

/// Where `guest.ld` has put this program.
const IMAGE: u64 = 2 << 20;

/// Reads it, and the tables that it leads to.
pub(super) fn machine(start_info: u64) -> Option<Machine<'static>> {
    if mmio::read32(start_info) != MAGIC {
        return None;
    }
    let mut dram = [Range::default(); MOST_DRAM];
    let entries = u64::from(mmio::read32(start_info + MEMORY_MAP_ENTRIES));
    let map = mmio::read64(start_info + MEMORY_MAP);
    let entries = (0..entries).map(|number| map + number * ENTRY);
    let memory = entries.filter(|entry| mmio::read32(entry + 16) == MEMORY);
    for (range, entry) in dram.iter_mut().zip(memory) {
        let start = mmio::read64(entry);
        let end = start.checked_add(mmio::read64(entry + 8))?;
        *range = Range { start, end };
    }
    let tables = acpi::Tables::read(mmio::read64(start_info + RSDP))?;
    Some(Machine {
        cmdline: text(mmio::read64(start_info + CMDLINE)),
        platform: tables.power,
        realm: None,
        ecam: tables.ecam,
        window: tables.window,
        window_64: tables.window_64,
        second_processor: tables.second_processor,
        registers: tables.ecam.unwrap_or_default(),
        // Memory begins at 0.
        nowhere: !0xfff,
        image: IMAGE,
        dram,
    })
}

/// The text at an address, up to its zero byte.
fn text(address: u64) -> &'static str {
    if address == 0 {
        return "";
    }
    let length = (0..LONGEST).find(|offset| mmio::read8(address + *offset as u64) == 0);
    let length = length.unwrap_or_default();
    // SAFETY: the loader put the text there, and nobody writes to it.
    let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, length) };
    core::str::from_utf8(bytes).unwrap_or_default()
}
