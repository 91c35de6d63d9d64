//! Guest RAM: where the host keeps it, and what becomes of a page that changes its state.
//!
//! Plain RAM is one mapping for each DRAM range. Split RAM, for the emulated Realm, is two: what the
//! guest finds at a page's own address (`low`), and what it finds at the page's shared alias.
//!
//! ```text
//!                   low (gpa)                      alias (gpa | top bit)
//!   private page    memory of this process         nothing: an access faults
//!   shared page     the page of the shared file    the same page of the shared file
//! ```
//!
//! A shared page answers at its low address as well, because the interrupt controller inside KVM
//! reads its tables there. Each conversion gives fresh zero pages: the old content is gone, and so
//! is the memory behind it. It costs the same few calls whatever the length of the range.

mod dma;
mod mapping;
mod placed;
mod region;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use iommu::{Gpa, PageRange};
use rustix::fs::{FallocateFlags, MemfdFlags};

pub use dma::{DmaRegion, DmaView};
use mapping::{Backing, Mapping};
pub use region::{GuestMemory, RamRegion};

/// What is left to the rest of the process of the mappings that the host lets it have.
const MAPPINGS_OF_OTHERS: usize = 2048;

/// Why there is no guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The host has no room for the range.
    #[error("cannot reserve guest memory {range}")]
    Reserve {
        /// The DRAM range.
        range: PageRange<Gpa>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host has no file for shared pages.
    #[error("cannot make a memory file of {bytes} bytes for shared pages")]
    SharedFile {
        /// Bytes of DRAM.
        bytes: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The DRAM ranges overlap, do not ascend, or there is none.
    #[error("the DRAM ranges are not ascending and disjoint")]
    Layout,
}

/// Which step of a conversion failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvertStep {
    /// Discarding old content of the shared file.
    Discard,
    /// Changing what is behind the shared alias.
    Alias,
    /// Changing what is behind the page's own address.
    Low,
}

/// Why a range did not change its state.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The range is not DRAM, or this RAM is plain.
    #[error("{range} is not guest memory that can be converted")]
    NotConvertible {
        /// The range.
        range: PageRange<Gpa>,
    },
    /// A step failed and the range is as it was.
    #[error("cannot convert {range}: step {step:?} failed{}", hint(.source))]
    Undone {
        /// The range.
        range: PageRange<Gpa>,
        /// The step.
        step: ConvertStep,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A step failed and there was no way back: the range is in neither state.
    #[error("cannot convert {range}, nor leave it as it was: step {step:?} failed{}", hint(.source))]
    Torn {
        /// The range.
        range: PageRange<Gpa>,
        /// The step.
        step: ConvertStep,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What an operator can do about it.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::OutOfMemory => " (the limit may be sysctl vm.max_map_count)",
        _ => "",
    }
}

/// A memory slot to give to KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamSlot {
    /// First guest-physical address, with the shared bit for an alias.
    pub guest: u64,
    /// Address in this process.
    pub host: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// The RAM of one VM. Keep it for as long as KVM or a DMA table refers to it.
pub struct GuestRam {
    memory: GuestMemory,
    low: Vec<DramRange>,
    split: Option<Split>,
}

/// One DRAM range and a mapping for it.
struct DramRange {
    range: PageRange<Gpa>,
    mapping: Arc<Mapping>,
}

/// What split RAM has beyond plain RAM.
struct Split {
    shared_bit: u8,
    /// One for each DRAM range, in the same order.
    aliases: Vec<Alias>,
    file: OwnedFd,
    most_extents: usize,
}

/// The alias of one DRAM range.
struct Alias {
    mapping: Arc<Mapping>,
    /// Where in the shared file the range begins.
    file_offset: u64,
}

/// The state that a range changes to.
#[derive(Clone, Copy)]
enum Target {
    Shared,
    Private,
}

impl GuestRam {
    /// RAM whose pages have one state for good.
    ///
    /// # Errors
    /// When the ranges do not ascend, or the host has no room.
    pub fn plain(dram: &[PageRange<Gpa>]) -> Result<Self, RamError> {
        let low = dram
            .iter()
            .map(|&range| DramRange::new(range))
            .collect::<Result<Vec<_>, _>>()?;
        let regions = low
            .iter()
            .map(|dram| RamRegion::new(dram.range.start().raw(), Arc::clone(&dram.mapping)));
        let memory = GuestMemory::from_regions(regions.collect()).map_err(|_| RamError::Layout)?;
        Ok(Self {
            memory,
            low,
            split: None,
        })
    }

    /// RAM whose pages start private and can be shared, at the alias that bit `shared_bit` names.
    ///
    /// # Errors
    /// As [`GuestRam::plain`]; or when a DRAM range reaches up to the shared bit, or the host gives
    /// no file for shared pages.
    pub fn split(dram: &[PageRange<Gpa>], shared_bit: u8) -> Result<Self, RamError> {
        let half = 1u64
            .checked_shl(shared_bit.into())
            .ok_or(RamError::Layout)?;
        if dram.iter().any(|range| range.end().raw() > half) {
            return Err(RamError::Layout);
        }
        let mut plain = Self::plain(dram)?;
        let mut aliases = Vec::with_capacity(dram.len());
        let mut file_offset: u64 = 0;
        for &range in dram {
            aliases.push(Alias {
                mapping: Arc::new(reserve(range)?),
                file_offset,
            });
            file_offset = file_offset
                .checked_add(range.bytes())
                .ok_or(RamError::Layout)?;
        }
        let file = shared_file(file_offset).map_err(|source| RamError::SharedFile {
            bytes: file_offset,
            source,
        })?;
        plain.split = Some(Split {
            shared_bit,
            aliases,
            file,
            most_extents: mapping_limit().saturating_sub(MAPPINGS_OF_OTHERS) / 2,
        });
        Ok(plain)
    }

    /// All of RAM at its plain guest-physical addresses, whatever the state of each page.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The slots that KVM needs to have before the guest runs.
    #[must_use]
    pub fn slots(&self) -> Vec<RamSlot> {
        let low = self.low.iter().map(|dram| dram.slot(&dram.mapping, 0));
        let aliases = self.split.iter().flat_map(|split| {
            let bit = 1 << split.shared_bit;
            let ranges = self.low.iter().zip(&split.aliases);
            ranges.map(move |(dram, alias)| dram.slot(&alias.mapping, bit))
        });
        low.chain(aliases).collect()
    }

    /// What DMA tables map.
    ///
    /// # Errors
    /// None that [`GuestRam::plain`] has not ruled out already.
    pub fn dma_view(&self) -> Result<DmaView, RamError> {
        let regions = self.low.iter().enumerate().map(|(index, dram)| {
            let alias = self
                .split
                .as_ref()
                .and_then(|split| split.aliases.get(index));
            let mapping = alias.map_or(&dram.mapping, |alias| &alias.mapping);
            DmaRegion::new(dram.range.start().raw(), Arc::clone(mapping))
        });
        DmaView::from_regions(regions.collect()).map_err(|_| RamError::Layout)
    }

    /// The address in this process of what a DMA table maps for `range`: the shared alias of split
    /// RAM, the RAM itself when plain. `None` when the range is not within one DRAM range.
    #[must_use]
    pub fn dma_address(&self, range: PageRange<Gpa>) -> Option<u64> {
        let index = self.low.iter().position(|dram| dram.range.covers(range))?;
        let dram = self.low.get(index)?;
        let base = match &self.split {
            Some(split) => split.aliases.get(index)?.mapping.base(),
            None => dram.mapping.base(),
        };
        let offset = range.start().offset_from(dram.range.start())?;
        host_number(base).checked_add(offset)
    }

    /// Into how many extents of one state the pages may fall before the host runs out of mappings for
    /// this process; each extent takes two.
    #[must_use]
    pub fn most_extents(&self) -> usize {
        match &self.split {
            Some(split) => split.most_extents,
            None => usize::MAX,
        }
    }

    /// Makes `range` shared: zero pages at the address and at the alias.
    ///
    /// The caller serialises conversions, and gives a range that is private as a whole.
    ///
    /// # Errors
    /// [`ConvertError`] says whether the range is still private.
    pub fn share(&self, range: PageRange<Gpa>) -> Result<(), ConvertError> {
        self.convert(range, Target::Shared)
    }

    /// Makes `range` private: zero pages at the address, nothing at the alias.
    ///
    /// The caller serialises conversions, gives a range that is shared as a whole, and has taken it
    /// out of every DMA table.
    ///
    /// # Errors
    /// [`ConvertError`] says whether the range is still shared.
    pub fn unshare(&self, range: PageRange<Gpa>) -> Result<(), ConvertError> {
        self.convert(range, Target::Private)
    }

    fn convert(&self, range: PageRange<Gpa>, target: Target) -> Result<(), ConvertError> {
        let split = self.split.as_ref().filter(|_| self.covers(range));
        let split = split.ok_or(ConvertError::NotConvertible { range })?;
        let mut changed = false;
        for (dram, alias) in self.low.iter().zip(&split.aliases) {
            if let Some(part) = dram.range.intersection(range) {
                let extent = Extent::new(dram, alias, &split.file, part)
                    .ok_or(ConvertError::NotConvertible { range })?;
                extent.convert(target).map_err(|error| match error {
                    // The parts before this one have lost their content: no way back.
                    ConvertError::Undone { step, source, .. } if changed => ConvertError::Torn {
                        range,
                        step,
                        source,
                    },
                    error => error,
                })?;
                changed = true;
            }
        }
        Ok(())
    }

    /// Whether every page of `range` is DRAM.
    fn covers(&self, range: PageRange<Gpa>) -> bool {
        let parts = self
            .low
            .iter()
            .filter_map(|dram| dram.range.intersection(range));
        parts.map(PageRange::pages).sum::<u64>() == range.pages()
    }
}

impl DramRange {
    fn new(range: PageRange<Gpa>) -> Result<Self, RamError> {
        let mapping = reserve(range)?;
        mapping
            .replace(0, mapping.bytes(), Backing::Anonymous)
            .map_err(|source| RamError::Reserve { range, source })?;
        Ok(Self {
            range,
            mapping: Arc::new(mapping),
        })
    }

    fn slot(&self, mapping: &Mapping, bit: u64) -> RamSlot {
        RamSlot {
            guest: self.range.start().raw() | bit,
            host: host_number(mapping.base()),
            bytes: self.range.bytes(),
        }
    }
}

/// A contiguous part of one DRAM range that changes its state as a whole.
struct Extent<'a> {
    part: PageRange<Gpa>,
    low: &'a Mapping,
    alias: &'a Mapping,
    file: &'a OwnedFd,
    /// Where the part begins in both mappings.
    offset: usize,
    bytes: usize,
    /// Where the part begins in the file.
    file_offset: u64,
}

impl<'a> Extent<'a> {
    fn new(
        dram: &'a DramRange,
        alias: &'a Alias,
        file: &'a OwnedFd,
        part: PageRange<Gpa>,
    ) -> Option<Self> {
        let offset = part.start().offset_from(dram.range.start())?;
        Some(Self {
            part,
            low: &dram.mapping,
            alias: &alias.mapping,
            file,
            offset: usize::try_from(offset).ok()?,
            bytes: usize::try_from(part.bytes()).ok()?,
            file_offset: alias.file_offset.checked_add(offset)?,
        })
    }

    /// The alias changes first: until the low address follows, no content is lost.
    fn convert(&self, target: Target) -> Result<(), ConvertError> {
        if let Target::Shared = target {
            self.discard()
                .map_err(|source| self.undone(ConvertStep::Discard, source))?;
        }
        self.set_alias(target)
            .map_err(|source| self.roll_back(target, ConvertStep::Alias, source))?;
        self.set_low(target)
            .map_err(|source| self.roll_back(target, ConvertStep::Low, source))?;
        if let Target::Private = target
            && let Err(error) = self.discard()
        {
            // Nobody reaches these pages any more, and sharing discards them again.
            tracing::warn!("cannot free the shared pages of {}: {error}", self.part);
        }
        Ok(())
    }

    fn set_alias(&self, target: Target) -> io::Result<()> {
        let backing = match target {
            Target::Shared => Backing::File(self.file.as_fd(), self.file_offset),
            Target::Private => Backing::Nothing,
        };
        self.alias.replace(self.offset, self.bytes, backing)
    }

    fn set_low(&self, target: Target) -> io::Result<()> {
        let backing = match target {
            Target::Shared => Backing::File(self.file.as_fd(), self.file_offset),
            Target::Private => Backing::Anonymous,
        };
        self.low.replace(self.offset, self.bytes, backing)
    }

    fn discard(&self) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.file, flags, self.file_offset, self.part.bytes())?;
        Ok(())
    }

    /// Puts the alias back to where it was before `target`.
    fn roll_back(&self, target: Target, step: ConvertStep, source: io::Error) -> ConvertError {
        let before = match target {
            Target::Shared => Target::Private,
            Target::Private => Target::Shared,
        };
        match self.set_alias(before) {
            Ok(()) => self.undone(step, source),
            Err(_) => ConvertError::Torn {
                range: self.part,
                step,
                source,
            },
        }
    }

    fn undone(&self, step: ConvertStep, source: io::Error) -> ConvertError {
        ConvertError::Undone {
            range: self.part,
            step,
            source,
        }
    }
}

fn reserve(range: PageRange<Gpa>) -> Result<Mapping, RamError> {
    usize::try_from(range.bytes())
        .map_err(|_| io::ErrorKind::OutOfMemory.into())
        .and_then(Mapping::reserve)
        .map_err(|source| RamError::Reserve { range, source })
}

/// How many mappings the host lets a process have.
fn mapping_limit() -> usize {
    /// What Linux starts with.
    const DEFAULT: usize = 65530;
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    limit
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT)
}

fn shared_file(bytes: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("guest-shared", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, bytes)?;
    Ok(file)
}

/// A pointer as the number that KVM and VFIO take.
fn host_number(pointer: *mut u8) -> u64 {
    // No target has addresses wider than 64 bits.
    pointer.expose_provenance() as u64
}
