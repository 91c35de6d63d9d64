//! What the firmware's tables say: each architecture reads its own.

use crate::arch::Platform;
use crate::rsi;

/// The most ranges of memory that are looked at.
pub const MOST_DRAM: usize = 8;

/// A half-open range of addresses.
#[derive(Clone, Copy, Default)]
pub struct Range {
    /// First.
    pub start: u64,
    /// First beyond.
    pub end: u64,
}

impl Range {
    /// How long it is; 0 for one that ends before it starts.
    pub fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether `address` is in it.
    pub fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }
}

/// The machine.
pub struct Machine<'a> {
    /// The kernel command line.
    pub cmdline: &'a str,
    /// How processors and the machine are switched.
    pub platform: Platform,
    /// The Realm, where this is one.
    pub realm: Option<rsi::Realm>,
    /// PCI configuration space, where there is any.
    pub ecam: Option<Range>,
    /// The PCI window for 32-bit memory.
    pub window: Option<Range>,
    /// The PCI window for 64-bit memory.
    pub window_64: Option<Range>,
    /// What the platform calls the second processor, where there is one.
    pub second_processor: Option<u64>,
    /// Registers of a device of the platform's, where there is no memory.
    pub registers: Range,
    /// Where there is nothing at all.
    pub nowhere: u64,
    /// Where this program is.
    pub image: u64,
    /// The memory; the rest is empty.
    pub dram: [Range; MOST_DRAM],
}

impl<'a> Machine<'a> {
    /// The memory.
    pub fn dram(&self) -> impl Iterator<Item = Range> {
        self.dram.into_iter().filter(|range| range.end != 0)
    }

    /// The address bit of shared memory and devices, where this is a Realm.
    pub fn shared_bit(&self) -> Option<u64> {
        self.realm.map(|realm| realm.shared_bit())
    }

    /// Where a device or a shared page at `address` is to be accessed.
    pub fn shared(&self, address: u64) -> u64 {
        address | self.shared_bit().unwrap_or(0)
    }

    /// The first address beyond memory, devices and windows.
    pub fn highest_address(&self) -> u64 {
        let devices = [self.ecam, self.window, self.window_64, Some(self.registers)];
        let ranges = self.dram().chain(devices.into_iter().flatten());
        ranges.map(|range| range.end).max().unwrap_or(0)
    }

    /// The highest page of memory.
    pub fn highest_page(&self) -> u64 {
        self.dram().map(|range| range.end).max().unwrap_or(0) - rsi::GRANULE
    }

    /// A place above all memory.
    pub fn beyond_memory(&self) -> u64 {
        const GIB: u64 = 1 << 30;
        self.highest_page().next_multiple_of(GIB) + GIB
    }

    /// `bytes` bytes, aligned to as much, that neither this program nor the loader uses.
    pub fn free_memory(&self, bytes: u64) -> Option<u64> {
        let mut starts = self.unused().filter_map(|range| {
            let start = range.start.next_multiple_of(bytes);
            (start.checked_add(bytes)? <= range.end).then_some(start)
        });
        starts.next()
    }

    /// The largest range that neither this program nor the loader uses.
    pub fn spare(&self) -> Range {
        let largest = self.unused().max_by_key(|range| range.bytes());
        largest.unwrap_or_default()
    }

    fn unused(&self) -> impl Iterator<Item = Range> {
        // The image and all that the loader puts beside it stay within its first 64 MiB; what is put
        // at the end of memory, within the last 16.
        const BESIDE: u64 = 64 << 20;
        const AT_END: u64 = 16 << 20;
        self.dram().map(|range| {
            let used = range.contains(self.image);
            let start = if used {
                self.image + BESIDE
            } else {
                range.start
            };
            Range {
                start,
                end: range.end.saturating_sub(AT_END),
            }
        })
    }

    /// The value of the word `name=value` on the command line; the last one where there are several.
    pub fn argument(&self, name: &str) -> Option<&'a str> {
        let words = self.cmdline.split_ascii_whitespace();
        let values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.last()
    }

    /// An argument that is a decimal number.
    pub fn number_argument(&self, name: &str) -> Option<u64> {
        self.argument(name)?.parse().ok()
    }
}
