//! Transfers to and from a disk, each written, read back and compared.
//!
//! ```text
//!   fill, write ──► spoil the buffer, read ──► compare ──► fill, write ...
//! ```

use super::ISLANDS;
use crate::machine::Machine;
use crate::memory::{ShareError, Shared, Spare};
use crate::mmio;
use crate::nvme::{self, Direction, Nvme, Transfer};
use crate::random::{Random, mix};
use crate::rsi::GRANULE;
use crate::time;
use crate::vdev::Vdev;

/// Pages of a buffer that lie together.
pub const ISLAND_PAGES: u64 = 4;

const SLOTS: usize = 4;
/// A slot's buffer is made of two islands.
const PAGES: u64 = 2 * ISLAND_PAGES;
/// The part of the disk that may be written.
const DISK_START: u64 = 8 << 20;
const DISK_BYTES: u64 = 1 << 20;
/// A disk that takes longer has lost a command.
const SECONDS: u64 = 30;

/// The disk with all its transfers.
pub struct Traffic {
    disk: Nvme,
    slots: [Slot; SLOTS],
    random: Random,
    /// How many were written and read back.
    pub transfers: u64,
    /// How many bytes of them were compared.
    pub verified: u64,
}

/// One transfer at a time.
struct Slot {
    islands: [Shared; 2],
    /// The page that lists all pages but the first.
    list: u64,
    /// Where on the disk it writes.
    area: u64,
    under_way: Option<UnderWay>,
}

#[derive(Clone, Copy)]
struct UnderWay {
    direction: Direction,
    offset: u64,
    pages: u64,
    seed: u64,
    since: u64,
}

impl Traffic {
    /// The machine's disk, if it has one, with buffers in `islands`.
    pub fn find(
        machine: &Machine<'_>,
        spare: &mut Spare,
        islands: [Result<Shared, &'static str>; 2 * ISLANDS],
        seed: u64,
    ) -> Result<Option<Self>, ShareError> {
        if !Nvme::is_there(machine) {
            return Ok(None);
        }
        let memory = spare.share(machine, nvme::PAGES + SLOTS as u64)?;
        let disk = Nvme::find(machine, memory)?;
        let mut slots = [const { None }; SLOTS];
        for (number, slot) in slots.iter_mut().enumerate() {
            // One in each processor's memory.
            let islands = [islands[number]?, islands[number + ISLANDS]?];
            *slot = Some(Slot {
                islands,
                list: memory.page(nvme::PAGES + number as u64),
                area: DISK_START + DISK_BYTES / SLOTS as u64 * number as u64,
                under_way: None,
            });
        }
        let [Some(a), Some(b), Some(c), Some(d)] = slots else {
            return Ok(None);
        };
        Ok(Some(Self {
            disk,
            slots: [a, b, c, d],
            random: Random::new(seed),
            transfers: 0,
            verified: 0,
        }))
    }

    /// Accepts the disk: private memory is in its reach as well.
    pub fn accept(&self) -> Result<(), &'static str> {
        Vdev(self.disk.function.id.into()).accept()
    }

    /// Deals with what has ended, and starts more.
    pub fn step(&mut self) -> Result<(), &'static str> {
        self.collect()?;
        for number in 0..SLOTS {
            if self.slots[number].under_way.is_none() {
                self.write(number);
            }
        }
        Ok(())
    }

    /// Waits for all that is under way.
    pub fn drain(&mut self) -> Result<(), &'static str> {
        while self.slots.iter().any(|slot| slot.under_way.is_some()) {
            self.collect()?;
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), &'static str> {
        while let Some(done) = self.disk.poll() {
            done.result?;
            let number = usize::from(done.command);
            let slot = self
                .slots
                .get_mut(number)
                .ok_or("an unknown command ended")?;
            let ended = slot.under_way.take().ok_or("a command ended twice")?;
            match ended.direction {
                Direction::Write => self.read_back(number, ended),
                Direction::Read => {
                    self.verified += slot.compare(ended)?;
                    self.transfers += 1;
                }
            }
        }
        let late = |at: UnderWay| time::ticks() - at.since > SECONDS * time::frequency();
        match self
            .slots
            .iter()
            .filter_map(|slot| slot.under_way)
            .any(late)
        {
            true => Err("the disk has lost a command"),
            false => Ok(()),
        }
    }

    fn write(&mut self, number: usize) {
        let pages = 1 + self.random.below(PAGES);
        let room = DISK_BYTES / SLOTS as u64 / GRANULE - pages;
        let slot = &self.slots[number];
        let transfer = UnderWay {
            direction: Direction::Write,
            offset: slot.area + self.random.below(room + 1) * GRANULE,
            pages,
            seed: self.random.next(),
            since: time::ticks(),
        };
        slot.fill(pages, |offset| pattern(transfer, offset));
        self.start(number, transfer);
    }

    fn read_back(&mut self, number: usize, written: UnderWay) {
        let transfer = UnderWay {
            direction: Direction::Read,
            since: time::ticks(),
            ..written
        };
        self.slots[number].fill(transfer.pages, |offset| !pattern(transfer, offset));
        self.start(number, transfer);
    }

    fn start(&mut self, number: usize, transfer: UnderWay) {
        let slot = &mut self.slots[number];
        slot.under_way = Some(transfer);
        for page in 1..transfer.pages {
            mmio::write64(slot.list + (page - 1) * 8, slot.page(page));
        }
        self.disk.start(
            number as u16,
            &Transfer {
                direction: transfer.direction,
                offset: transfer.offset,
                pages: transfer.pages,
                first: slot.page(0),
                rest: if transfer.pages == 2 {
                    slot.page(1)
                } else {
                    slot.list
                },
            },
        );
    }
}

impl Slot {
    /// Page `number` of the buffer: the islands take turns.
    fn page(&self, number: u64) -> u64 {
        self.islands[(number % 2) as usize].page(number / 2)
    }

    fn fill(&self, pages: u64, word: impl Fn(u64) -> u64) {
        for page in 0..pages {
            for offset in (0..GRANULE).step_by(8) {
                mmio::write64(self.page(page) + offset, word(page * GRANULE + offset));
            }
        }
    }

    fn compare(&self, transfer: UnderWay) -> Result<u64, &'static str> {
        for page in 0..transfer.pages {
            for offset in (0..GRANULE).step_by(8) {
                let found = mmio::read64(self.page(page) + offset);
                let wanted = pattern(transfer, page * GRANULE + offset);
                if found == !wanted {
                    return Err("the disk did not write all of the buffer");
                }
                if found != wanted {
                    return Err("the disk brought other bytes back");
                }
            }
        }
        Ok(transfer.pages * GRANULE)
    }
}

/// The word at `offset` of a transfer.
fn pattern(transfer: UnderWay, offset: u64) -> u64 {
    mix(transfer.seed ^ (transfer.offset + offset))
}
