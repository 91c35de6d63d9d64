//! What the device tree says.

use hermit_dtb::Dtb;

use crate::rsi;
use crate::smccc::Conduit;

/// The most memory nodes that are looked at.
const MOST_DRAM: usize = 8;

/// A half-open range of addresses.
#[derive(Clone, Copy, Default)]
pub struct Range {
    /// First.
    pub start: u64,
    /// First beyond.
    pub end: u64,
}

impl Range {
    fn from_cells(cells: &[u8], at: usize) -> Option<Self> {
        let start = number(cells, at, 2)?;
        Some(Self {
            start,
            end: start.checked_add(number(cells, at + 2, 2)?)?,
        })
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
    /// How to call PSCI.
    pub conduit: Conduit,
    /// The Realm, where this is one.
    pub realm: Option<rsi::Realm>,
    /// PCI configuration space, where there is any.
    pub ecam: Option<Range>,
    /// The PCI window for 32-bit memory.
    pub window: Option<Range>,
    image: u64,
    serial: Range,
    dram: [Range; MOST_DRAM],
}

impl<'a> Machine<'a> {
    /// Reads the tree; `image` is where this program is.
    pub fn new(tree: &Dtb<'a>, image: u64) -> Self {
        let mut dram = [Range::default(); MOST_DRAM];
        let memory = tree
            .enum_subnodes("/")
            .filter(|name| name.starts_with("memory@"));
        for (range, node) in dram.iter_mut().zip(memory) {
            let reg = tree.get_property(node_path(&mut [0; 64], node), "reg");
            *range = reg
                .and_then(|reg| Range::from_cells(reg, 0))
                .unwrap_or_default();
        }
        let range = |path| Range::from_cells(tree.get_property(path, "reg")?, 0);
        let text = |path, name| {
            let bytes: &'a [u8] = tree.get_property(path, name)?;
            core::str::from_utf8(bytes.strip_suffix(&[0])?).ok()
        };
        let conduit = match text("/psci", "method") {
            Some("smc") => Conduit::Smc,
            _ => Conduit::Hvc,
        };
        let ranges = tree.get_property("/pcie@", "ranges").unwrap_or_default();
        Self {
            cmdline: text("/chosen", "bootargs").unwrap_or_default(),
            conduit,
            realm: rsi::Realm::find(conduit),
            ecam: range("/pcie@"),
            window: memory_window(ranges),
            image,
            serial: range("/serial@").unwrap_or_default(),
            dram,
        }
    }

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

    /// Where the serial port is to be accessed, or 0.
    pub fn serial_address(&self) -> u64 {
        match self.serial.start {
            0 => 0,
            start => self.shared(start),
        }
    }

    /// The first address beyond memory, devices and windows.
    pub fn highest_address(&self) -> u64 {
        let devices = [self.ecam, self.window, Some(self.serial)];
        let ranges = self.dram().chain(devices.into_iter().flatten());
        ranges.map(|range| range.end).max().unwrap_or(0)
    }

    /// The highest page of memory.
    pub fn highest_page(&self) -> u64 {
        self.dram().map(|range| range.end).max().unwrap_or(0) - rsi::GRANULE
    }

    /// `bytes` bytes, aligned to as much, that neither this program nor the loader uses.
    pub fn free_memory(&self, bytes: u64) -> Option<u64> {
        // The image and all that the loader puts beside it stay within its first 64 MiB; what is put
        // at the end of memory, within the last 16.
        const BESIDE: u64 = 64 << 20;
        const AT_END: u64 = 16 << 20;
        let mut starts = self.dram().filter_map(|range| {
            let used = range.contains(self.image);
            let first = if used {
                self.image + BESIDE
            } else {
                range.start
            };
            let start = first.next_multiple_of(bytes);
            let end = range.end.saturating_sub(AT_END);
            (start.checked_add(bytes)? <= end).then_some(start)
        });
        starts.next()
    }
}

/// The first 32-bit memory window of a PCI root's `ranges`: seven cells each.
fn memory_window(ranges: &[u8]) -> Option<Range> {
    const SPACE: u64 = 3 << 24;
    const MEMORY_32: u64 = 2 << 24;
    let mut entries = ranges.chunks_exact(28);
    let entry = entries
        .find(|entry| number(entry, 0, 1).is_some_and(|space| space & SPACE == MEMORY_32))?;
    Range::from_cells(entry, 3)
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
