//! A disk behind NVMe (NVM Express base specification 1.4), polled: the admin queue and one I/O queue.
//!
//! ```text
//!   page 0  admin submissions      page 2  I/O submissions     page 4  what IDENTIFY fills
//!   page 1  admin completions      page 3  I/O completions
//! ```

use crate::machine::Machine;
use crate::memory::Shared;
use crate::pci::Function;
use crate::{mmio, time};

/// Mass storage, non-volatile memory, NVM Express.
const CLASS: u32 = 0x01_0802;

/// How many shared pages a controller needs.
pub const PAGES: u64 = 5;

/// Commands that can be under way in a queue are one fewer.
const ENTRIES: u16 = 16;

mod register {
    pub(super) const CAPABILITIES: u64 = 0;
    pub(super) const CONFIGURATION: u64 = 0x14;
    pub(super) const STATUS: u64 = 0x1c;
    pub(super) const ADMIN_ENTRIES: u64 = 0x24;
    pub(super) const ADMIN_SUBMISSIONS: u64 = 0x28;
    pub(super) const ADMIN_COMPLETIONS: u64 = 0x30;
    pub(super) const DOORBELLS: u64 = 0x1000;
}

mod opcode {
    pub(super) const CREATE_SUBMISSIONS: u32 = 1;
    pub(super) const CREATE_COMPLETIONS: u32 = 5;
    pub(super) const IDENTIFY: u32 = 6;
    pub(super) const WRITE: u32 = 1;
    pub(super) const READ: u32 = 2;
}

/// Enabled; entries of 64 and of 16 bytes; pages of 4 KiB.
const ENABLED: u32 = 4 << 20 | 6 << 16 | 1;
const NAMESPACE: u32 = 1;

/// A disk.
pub struct Nvme {
    /// Its function.
    pub function: Function,
    admin: Queue,
    io: Queue,
    /// Bytes of a block.
    block: u64,
}

/// A pair of rings.
struct Queue {
    submissions: u64,
    completions: u64,
    submission_bell: u64,
    completion_bell: u64,
    tail: u16,
    head: u16,
    /// What the phase bit of the next completion is.
    phase: u16,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// A transfer of whole pages.
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How many pages.
    pub pages: u64,
    /// The DMA address of the first page.
    pub first: u64,
    /// The DMA address of the second page where there are two, and of a list of all after the first
    /// where there are more.
    pub rest: u64,
}

/// The end of a command.
pub struct Completion {
    /// The number that it was submitted with.
    pub command: u16,
    /// Whether it did what it says.
    pub result: Result<(), &'static str>,
}

impl Queue {
    fn new(memory: Shared, first_page: u64, bells: [u64; 2]) -> Self {
        Self {
            submissions: memory.page(first_page),
            completions: memory.page(first_page + 1),
            submission_bell: bells[0],
            completion_bell: bells[1],
            tail: 0,
            head: 0,
            phase: 1,
        }
    }

    fn submit(&mut self, words: [u32; 16]) {
        let entry = self.submissions + u64::from(self.tail) * 64;
        for (at, word) in (entry..).step_by(4).zip(words) {
            mmio::write32(at, word);
        }
        self.tail = (self.tail + 1) % ENTRIES;
        mmio::barrier();
        mmio::write32(self.submission_bell, self.tail.into());
    }

    fn poll(&mut self) -> Option<Completion> {
        let entry = self.completions + u64::from(self.head) * 16;
        let last = mmio::read32(entry + 12);
        let status = (last >> 16) as u16;
        if status & 1 != self.phase {
            return None;
        }
        mmio::barrier();
        self.head = (self.head + 1) % ENTRIES;
        if self.head == 0 {
            self.phase ^= 1;
        }
        mmio::write32(self.completion_bell, self.head.into());
        Some(Completion {
            command: last as u16,
            result: match status >> 1 & 0x7ff {
                0 => Ok(()),
                _ => Err("the disk reports an error"),
            },
        })
    }
}

impl Nvme {
    /// Whether the machine has a disk.
    pub fn is_there(machine: &Machine<'_>) -> bool {
        Function::of_class(machine, CLASS).is_some()
    }

    /// The first disk of the machine, ready for commands; it keeps the first [`PAGES`] pages of
    /// `memory`, which hold zeros.
    pub fn find(machine: &Machine<'_>, memory: Shared) -> Result<Self, &'static str> {
        let function = Function::of_class(machine, CLASS).ok_or("there is no NVMe disk")?;
        let base = function
            .enable(machine)
            .ok_or("the disk has no place for its registers")?;
        mmio::write32(base + register::CONFIGURATION, 0);
        wait_ready(base, 0)?;
        let entries = u32::from(ENTRIES) - 1;
        mmio::write32(base + register::ADMIN_ENTRIES, entries << 16 | entries);
        write_address(base + register::ADMIN_SUBMISSIONS, memory.page(0));
        write_address(base + register::ADMIN_COMPLETIONS, memory.page(1));
        mmio::write32(base + register::CONFIGURATION, ENABLED);
        wait_ready(base, 1)?;
        let upper = mmio::read32(base + register::CAPABILITIES + 4);
        let stride = 4_u64 << (upper & 0xf);
        let bell = |number: u64| base + register::DOORBELLS + number * stride;
        let mut disk = Self {
            function,
            admin: Queue::new(memory, 0, [bell(0), bell(1)]),
            io: Queue::new(memory, 2, [bell(2), bell(3)]),
            block: 0,
        };
        disk.block = disk.identify(memory.page(4))?;
        disk.create_queue()?;
        Ok(disk)
    }

    /// Starts a transfer; `command` names it. At most 15 can be under way.
    pub fn start(&mut self, command: u16, transfer: &Transfer) {
        let mut words = [0; 16];
        words[0] = u32::from(command) << 16
            | match transfer.direction {
                Direction::Read => opcode::READ,
                Direction::Write => opcode::WRITE,
            };
        words[1] = NAMESPACE;
        put_address(&mut words, 6, transfer.first);
        put_address(&mut words, 8, transfer.rest);
        put_address(&mut words, 10, transfer.offset / self.block);
        words[12] = (transfer.pages * 4096 / self.block) as u32 - 1;
        self.io.submit(words);
    }

    /// A transfer that has ended.
    pub fn poll(&mut self) -> Option<Completion> {
        self.io.poll()
    }

    fn command(&mut self, words: [u32; 16]) -> Result<(), &'static str> {
        self.admin.submit(words);
        let mut done = None;
        time::wait(10, || {
            done = self.admin.poll();
            done.is_some()
        });
        done.ok_or("the disk does not answer")?.result
    }

    /// The namespace's block size.
    fn identify(&mut self, page: u64) -> Result<u64, &'static str> {
        let mut words = [0; 16];
        words[0] = opcode::IDENTIFY;
        words[1] = NAMESPACE;
        put_address(&mut words, 6, page);
        self.command(words)?;
        let format = u64::from(mmio::read8(page + 26) & 0xf);
        let shift = mmio::read8(page + 128 + 4 * format + 2);
        match shift {
            9..=12 => Ok(1 << shift),
            _ => Err("the disk has odd blocks"),
        }
    }

    fn create_queue(&mut self) -> Result<(), &'static str> {
        const CONTIGUOUS: u32 = 1;
        const NUMBER: u32 = 1;
        let size = (u32::from(ENTRIES) - 1) << 16 | NUMBER;
        let mut completions = [0; 16];
        completions[0] = opcode::CREATE_COMPLETIONS;
        put_address(&mut completions, 6, self.io.completions);
        completions[10] = size;
        completions[11] = CONTIGUOUS;
        self.command(completions)?;
        let mut submissions = [0; 16];
        submissions[0] = opcode::CREATE_SUBMISSIONS;
        put_address(&mut submissions, 6, self.io.submissions);
        submissions[10] = size;
        submissions[11] = NUMBER << 16 | CONTIGUOUS;
        self.command(submissions)
    }
}

fn put_address(words: &mut [u32; 16], at: usize, address: u64) {
    words[at] = address as u32;
    words[at + 1] = (address >> 32) as u32;
}

fn write_address(register: u64, address: u64) {
    mmio::write32(register, address as u32);
    mmio::write32(register + 4, (address >> 32) as u32);
}

fn wait_ready(base: u64, ready: u32) -> Result<(), &'static str> {
    match time::wait(10, || mmio::read32(base + register::STATUS) & 1 == ready) {
        true => Ok(()),
        false => Err("the disk does not become ready"),
    }
}
