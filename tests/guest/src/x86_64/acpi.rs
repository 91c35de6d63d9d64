//! What the ACPI tables say (ACPI 6.5, chapter 5), as far as a test wants to know it.
//!
//! The DSDT is code. It is not run: windows and the type of sleep are found by the bytes of what
//! describes them.

use super::{Platform, mmio};
use crate::machine::Range;

/// What the tables say.
pub(super) struct Tables {
    pub(super) power: Platform,
    pub(super) ecam: Option<Range>,
    pub(super) window: Option<Range>,
    pub(super) window_64: Option<Range>,
    pub(super) second_processor: Option<u64>,
}

/// Bytes of the header that every table has.
const HEADER: u64 = 36;

/// A table.
#[derive(Clone, Copy)]
struct Table(u64);

impl Table {
    fn signature(self) -> [u8; 4] {
        mmio::read32(self.0).to_le_bytes()
    }

    fn bytes(self) -> u64 {
        mmio::read32(self.0 + 4).into()
    }

    /// The addresses at which `pattern` begins.
    fn places(self, pattern: &'static [u8]) -> impl Iterator<Item = u64> {
        let places = self.0 + HEADER..(self.0 + self.bytes()).saturating_sub(pattern.len() as u64);
        places.filter(move |place| {
            let mut bytes = (*place..).zip(pattern);
            bytes.all(|(at, byte)| mmio::read8(at) == *byte)
        })
    }
}

impl Tables {
    /// Reads the tables that the RSDP at an address leads to.
    pub(super) fn read(rsdp: u64) -> Option<Self> {
        const XSDT: u64 = 24;
        if rsdp == 0 || mmio::read64(rsdp) != u64::from_le_bytes(*b"RSD PTR ") {
            return None;
        }
        // Revision 0 has a table of 32-bit addresses only.
        let (root, step) = match mmio::read8(rsdp + 15) {
            0 => (u64::from(mmio::read32(rsdp + 16)), 4),
            _ => (mmio::read64(rsdp + XSDT), 8),
        };
        let root = Table(root);
        let entries = (root.0 + HEADER..root.0 + root.bytes()).step_by(step);
        let tables = entries.map(|entry| match step {
            4 => Table(mmio::read32(entry).into()),
            _ => Table(mmio::read64(entry)),
        });
        let find =
            |signature: &[u8; 4]| tables.clone().find(|table| table.signature() == *signature);
        let fadt = find(b"FACP")?;
        let dsdt = dsdt(fadt);
        let ecam = find(b"MCFG").map(ecam);
        // Configuration space may be described in the same way, and what a PC has always had.
        let windows = || {
            let narrow = dsdt.places(&MEMORY_32).map(window_32);
            let all = narrow.chain(dsdt.places(&MEMORY_64).map(window_64));
            all.filter(|window| ecam.is_none_or(|ecam| !ecam.contains(window.start)))
        };
        const FOUR_GIB: u64 = 1 << 32;
        let low = windows().filter(|window| window.end <= FOUR_GIB);
        let high = windows().filter(|window| window.start >= FOUR_GIB);
        Some(Self {
            power: power(fadt, dsdt),
            ecam,
            window: low.max_by_key(|window| window.bytes()),
            window_64: high.max_by_key(|window| window.bytes()),
            second_processor: find(b"APIC").and_then(second_processor),
        })
    }
}

fn dsdt(fadt: Table) -> Table {
    match mmio::read64(fadt.0 + 140) {
        0 => Table(mmio::read32(fadt.0 + 40).into()),
        address => Table(address),
    }
}

/// The FADT says by which register the machine goes to sleep, and the DSDT's `_S5_` with which value.
fn power(fadt: Table, dsdt: Table) -> Platform {
    const HARDWARE_REDUCED: u32 = 1 << 20;
    const IN_MEMORY: u8 = 0;
    let kind = dsdt.places(b"_S5_\x12").next().map(|name| {
        // A package: its length, its number of elements, and the first of them.
        match mmio::read8(name + 7) {
            0x0a => mmio::read8(name + 8),
            number => number,
        }
    });
    let kind = kind.unwrap_or_default();
    if mmio::read32(fadt.0 + 112) & HARDWARE_REDUCED == 0 {
        return Platform::Control(mmio::read32(fadt.0 + 64) as u16, kind);
    }
    let register = mmio::read64(fadt.0 + 248);
    match (register, mmio::read8(fadt.0 + 244)) {
        (0, _) => Platform::Unknown,
        (address, IN_MEMORY) => Platform::SleepMemory(address, kind),
        (port, _) => Platform::SleepPort(port as u16, kind),
    }
}

fn ecam(mcfg: Table) -> Range {
    let entry = mcfg.0 + HEADER + 8;
    let start = mmio::read64(entry);
    let buses = u64::from(mmio::read8(entry + 11)) + 1;
    Range {
        start,
        end: start + (buses << 20),
    }
}

/// The id of the second local APIC that the MADT lists.
fn second_processor(madt: Table) -> Option<u64> {
    const LOCAL_APIC: u8 = 0;
    let end = madt.0 + madt.bytes();
    let next = |entry: &u64| {
        let bytes = u64::from(mmio::read8(entry + 1)).max(2);
        Some(entry + bytes).filter(|next| *next < end)
    };
    let entries = core::iter::successors(Some(madt.0 + HEADER + 8), next);
    let mut processors = entries.filter(|entry| mmio::read8(*entry) == LOCAL_APIC);
    processors.nth(1).map(|entry| mmio::read8(entry + 3).into())
}

/// How the descriptor of a window with 32-bit fields begins: its kind, its length, and memory.
const MEMORY_32: [u8; 4] = [0x87, 23, 0, 0];
/// The same with 64-bit fields.
const MEMORY_64: [u8; 4] = [0x8a, 43, 0, 0];

fn window_32(descriptor: u64) -> Range {
    Range {
        start: mmio::read32(descriptor + 10).into(),
        end: u64::from(mmio::read32(descriptor + 14)) + 1,
    }
}

fn window_64(descriptor: u64) -> Range {
    Range {
        start: mmio::read64(descriptor + 14),
        end: mmio::read64(descriptor + 22).saturating_add(1),
    }
}
