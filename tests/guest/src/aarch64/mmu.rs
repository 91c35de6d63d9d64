//! The page tables: every address of the machine, at itself, memory as memory and the rest as device.

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::machine::{Machine, Range};

const GIB: u64 = 1 << 30;
const MIB_2: u64 = 2 << 20;
const ENTRIES: usize = 512;

const TABLE: u64 = 0x3;
const MEMORY: u64 = 0x705;
const DEVICE: u64 = 0x401 | 1 << 54 | 1 << 53;

/// Level 0, one level 1 for the low half and one for the shared half, and a level 2 for each GiB that
/// is partly memory.
const TABLES: usize = 40;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u64; ENTRIES]; TABLES]>);

// SAFETY: only `map_all` touches the pool, and nothing else runs then.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([[0; ENTRIES]; TABLES]));

struct Tables<'a> {
    pool: &'a mut [[u64; ENTRIES]; TABLES],
    used: usize,
}

impl Tables<'_> {
    /// The number of a new, empty table.
    fn add(&mut self) -> usize {
        let number = self.used;
        assert!(number < TABLES, "out of page tables");
        self.used += 1;
        number
    }

    fn address(&self, table: usize) -> u64 {
        (&raw const self.pool[table]) as u64
    }

    /// The table that entry `index` of `table` points to.
    fn next(&mut self, table: usize, index: usize) -> usize {
        if self.pool[table][index] == 0 {
            let number = self.add();
            self.pool[table][index] = self.address(number) | TABLE;
        }
        let base = self.address(0);
        let next = (self.pool[table][index] & !0xfff) - base;
        (next / 4096) as usize
    }

    /// Maps the 1 GiB at `address`, whose memory is what `is_memory` says of each 2 MiB.
    fn map_gib(&mut self, address: u64, is_memory: impl Fn(u64) -> bool) {
        let level_1 = self.next(0, (address >> 39) as usize % ENTRIES);
        let index = (address / GIB) as usize % ENTRIES;
        let blocks = || (0..ENTRIES as u64).map(|block| address + block * MIB_2);
        let memory = blocks().filter(|&block| is_memory(block)).count();
        self.pool[level_1][index] = match memory {
            0 => address | DEVICE,
            ENTRIES => address | MEMORY,
            _ => {
                let level_2 = self.add();
                for (entry, block) in blocks().enumerate() {
                    let kind = if is_memory(block) { MEMORY } else { DEVICE };
                    self.pool[level_2][entry] = block | kind;
                }
                self.address(level_2) | TABLE
            }
        };
    }
}

/// Replaces the first page table by one that knows the machine.
pub fn map_all(machine: &Machine<'_>) {
    // SAFETY: called once, before anything else looks at the pool.
    let pool = unsafe { &mut *POOL.0.get() };
    let mut tables = Tables { pool, used: 1 };
    let top = machine.highest_address().next_multiple_of(GIB);
    let is_memory = |at: u64| machine.dram().any(|range: Range| range.contains(at));
    for gib in (0..top).step_by(GIB as usize) {
        tables.map_gib(gib, is_memory);
        if let Some(bit) = machine.shared_bit() {
            tables.map_gib(gib | bit, |at| is_memory(at & !bit));
        }
    }
    use_tables();
}

/// Has this processor use the page tables that [`map_all`] has made.
pub fn use_tables() {
    let root = POOL.0.get() as u64;
    // SAFETY: the new tables map all that the old ones did, at the same addresses.
    unsafe {
        asm!(
            "dsb sy",
            "msr ttbr0_el1, {0}",
            "isb",
            "tlbi vmalle1",
            "dsb sy",
            "isb",
            in(reg) root,
            options(nostack),
        );
    }
}
