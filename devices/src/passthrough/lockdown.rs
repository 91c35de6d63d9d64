//! What a locked interface keeps from its device.
//!
//! Hardware takes every write of table 11-2 of the TDISP chapter, and then fails the interface. Most
//! of them are no attempt to change anything: Linux clears memory space enable and writes ones to BARs
//! only to learn their sizes. So the guest's registers take such a write and show it, and it comes
//! into force when the interface is no longer locked. What was reported of the interface stays true.
//!
//! ```text
//!   guest writes              while LOCKED or RUN                    once unlocked
//!   BAR, memory enable off    shown; BARs answer where they did      as shown
//!   power state, tags, snoop  shown; the device keeps what it has    passed on
//!   bus master off, reset     the interface fails first: ERROR       -
//!   all other registers       as ever
//! ```
//! The last two are the guest's word that its device is to stop: what it means then is that private
//! memory is out of reach, which a write that is held back would not see to.

use super::filter::Guarded;
use super::physical::PhysicalFunction;
use crate::pci::registers::{COMMAND, COMMAND_MEMORY};
use crate::pci::{AddressSpace, Bar, BarIndex, ConfigSpace};

/// What kind of write was held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// A base address register was to change.
    BaseAddress,
    /// Memory decoding was to end.
    MemoryEnable,
    /// A register of the device itself was to change: its power state, tags, snooping.
    DeviceControl,
}

impl Withheld {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BaseAddress => "a base address register",
            Self::MemoryEnable => "memory space enable",
            Self::DeviceControl => "a control register of the device",
        }
    }
}

/// Bits of a device's register that the guest has changed and the device has not.
#[derive(Debug, Clone, Copy)]
struct Deferred {
    bits: Guarded,
    value: u8,
}

/// What was in force when the interface was locked, and still is.
pub(super) struct Lockdown {
    bars: Vec<(BarIndex, u64)>,
    memory: bool,
    deferred: Vec<Deferred>,
}

impl Lockdown {
    /// As the registers are now.
    pub(super) fn new(bars: &[Bar], space: &ConfigSpace) -> Self {
        let address = |bar: &Bar| (bar.index(), bar.address(space));
        Self {
            bars: bars.iter().map(address).collect(),
            memory: memory_enabled(space),
            deferred: Vec::new(),
        }
    }

    /// Where a BAR goes on answering.
    pub(super) fn address(&self, bar: &Bar) -> Option<u64> {
        let mut bars = self.bars.iter();
        bars.find(|(index, _)| *index == bar.index())
            .map(|(_, address)| *address)
    }

    /// The command register that is in force when the guest's holds `command`.
    pub(super) fn command(&self, command: u16) -> u16 {
        match self.memory {
            true => command | COMMAND_MEMORY,
            false => command,
        }
    }

    /// Takes note of a write to our registers, `space` being them after it: what of it is held back.
    pub(super) fn note(
        &mut self,
        before: &ConfigSpace,
        space: &ConfigSpace,
        bars: &[Bar],
    ) -> Vec<Withheld> {
        let moved = |bar: &Bar| bar.address(before) != bar.address(space);
        let moved = bars.iter().any(moved).then_some(Withheld::BaseAddress);
        let cleared = memory_enabled(before) && !memory_enabled(space);
        let cleared = cleared.then_some(Withheld::MemoryEnable);
        // Decoding may begin while locked: it is ending it that fails an interface.
        self.memory |= memory_enabled(space);
        moved.into_iter().chain(cleared).collect()
    }

    /// Takes what is guarded out of a write to the device: `data` becomes what it may get. Tells
    /// whether anything is held back.
    pub(super) fn defer(
        &mut self,
        guarded: &[Guarded],
        (register, data): (u16, &mut [u8]),
        physical: &dyn PhysicalFunction,
    ) -> Option<Withheld> {
        let mut withheld = None;
        for &bits in guarded {
            let index = bits.at.checked_sub(register).map(usize::from);
            let Some(byte) = index.and_then(|index| data.get_mut(index)) else {
                continue;
            };
            let now = read_byte(physical, bits.at);
            self.deferred.retain(|deferred| deferred.bits.at != bits.at);
            if (*byte ^ now) & bits.mask != 0 {
                let value = *byte & bits.mask;
                self.deferred.push(Deferred { bits, value });
                withheld = Some(Withheld::DeviceControl);
            }
            *byte = *byte & !bits.mask | now & bits.mask;
        }
        withheld
    }

    /// Shows the guest, in what it reads from `register` on, what it has written.
    pub(super) fn show(&self, register: u16, data: &mut [u8]) {
        for Deferred { bits, value } in &self.deferred {
            let index = bits.at.checked_sub(register).map(usize::from);
            if let Some(byte) = index.and_then(|index| data.get_mut(index)) {
                *byte = *byte & !bits.mask | value;
            }
        }
    }

    /// The writes that the device is to get now that nothing is locked: register and byte.
    pub(super) fn due(&self, physical: &dyn PhysicalFunction) -> Vec<(u16, u8)> {
        let due = |Deferred { bits, value }: &Deferred| {
            (bits.at, read_byte(physical, bits.at) & !bits.mask | value)
        };
        self.deferred.iter().map(due).collect()
    }
}

fn memory_enabled(space: &ConfigSpace) -> bool {
    space.u16(COMMAND) & COMMAND_MEMORY != 0
}

/// A byte of the device's own registers; ones where it does not answer.
fn read_byte(physical: &dyn PhysicalFunction, register: u16) -> u8 {
    let mut byte = [0xff];
    let _ones_when_it_fails = physical.config_read(register, &mut byte);
    byte[0]
}

/// Whether two memory BARs that decode something answer at the same address: such an interface cannot
/// be locked.
pub(super) fn overlap(bars: &[Bar], space: &ConfigSpace) -> bool {
    let ranges = || {
        let memory = bars
            .iter()
            .filter(|bar| bar.space() == AddressSpace::Memory);
        memory.map(|bar| (bar.index(), bar.address(space), bar.size()))
    };
    memory_enabled(space)
        && ranges().any(|(index, start, size)| {
            ranges().any(|(other, at, bytes)| {
                other != index
                    && start < at.saturating_add(bytes)
                    && at < start.saturating_add(size)
            })
        })
}
