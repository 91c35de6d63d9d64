//! Guest RAM: where the host keeps it, and what becomes of a page that changes its state.
//!
//! Plain RAM is one mapping for each DRAM range: of memory of this process, or of a file, where another
//! process is to be given it. RAM with a private form (`private`) is such a mapping, of shared pages, and
//! files for private ones. Split RAM, for the emulated Realm, is two mappings: what the guest finds at a
//! page's own address (`low`), and what it finds at the page's shared alias.
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
mod extent;
mod mapping;
mod pages;
mod placed;
mod populate;
mod private;
mod region;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use hostcall::gate;
use iommu::{Gpa, PageRange};
use rustix::fs::{FallocateFlags, MemfdFlags};

pub use dma::{DmaRegion, DmaView};
pub use extent::{ConvertError, ConvertStep};
use extent::{Extent, Target};
use mapping::{Backing, HUGE_PAGE, Mapping};
pub use pages::HostPages;
pub use populate::{PopulateError, Populated};
pub use private::SharedForm;
pub use region::{GuestMemory, RamRegion};

/// What is left to the rest of the process of the mappings that the host lets it have.
const MAPPINGS_OF_OTHERS: usize = 2048;

/// Why there is no guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The host has no room for the range.
    #[error("cannot reserve guest memory {range}: mmap failed")]
    Reserve {
        /// The DRAM range.
        range: PageRange<Gpa>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host has too few huge pages, or none of that size.
    #[error("cannot have guest memory {range} in {pages}")]
    Pool {
        /// The DRAM range.
        range: PageRange<Gpa>,
        /// Which pages.
        pages: HostPages,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host has no file for pages that others see.
    #[error("cannot make a memory file of {bytes} bytes for guest memory: memfd_create failed")]
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
    pages: HostPages,
    low: Vec<DramRange>,
    form: Form,
}

/// What there is of a page.
enum Form {
    /// One memory, which everybody sees.
    Plain,
    /// Two memories of this process.
    Split(Split),
    /// One of this process, and one of the guest alone.
    Private(private::Files),
}

/// Who else may be given RAM.
#[derive(Debug, Clone, Copy)]
enum Sharing {
    /// Nobody: it is memory of this process.
    Process,
    /// Processes of the host that are handed its files.
    Files,
}

/// A file that a part of RAM is in, from its beginning on.
#[derive(Debug, Clone, Copy)]
pub struct FilePart<'a> {
    /// Where the guest and this process have it.
    pub slot: RamSlot,
    /// The file.
    pub file: BorrowedFd<'a>,
}

/// One DRAM range and a mapping for it.
struct DramRange {
    range: PageRange<Gpa>,
    mapping: Arc<Mapping>,
    /// What it is in, where others may be given that.
    file: Option<OwnedFd>,
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

impl GuestRam {
    /// RAM whose pages have one state for good, made of `pages` of the host. Pages of its pool are set
    /// aside at once; fill them before anybody looks into them, since on some hosts that can fail.
    ///
    /// # Errors
    /// When the ranges do not ascend, are not made of whole pages, or the host has no room.
    pub fn plain(dram: &[PageRange<Gpa>], pages: HostPages) -> Result<Self, RamError> {
        Self::whole(dram, pages, Sharing::Process)
    }

    /// As [`GuestRam::plain`], in files that other processes of the host can be given.
    ///
    /// # Errors
    /// As [`GuestRam::plain`]; or when the host gives no file.
    pub fn in_files(dram: &[PageRange<Gpa>], pages: HostPages) -> Result<Self, RamError> {
        Self::whole(dram, pages, Sharing::Files)
    }

    fn whole(
        dram: &[PageRange<Gpa>],
        pages: HostPages,
        sharing: Sharing,
    ) -> Result<Self, RamError> {
        let low = dram
            .iter()
            .map(|&range| DramRange::new(range, pages, sharing))
            .collect::<Result<Vec<_>, _>>()?;
        Self::of(low, Form::Plain, pages)
    }

    fn of(low: Vec<DramRange>, form: Form, pages: HostPages) -> Result<Self, RamError> {
        let regions = low
            .iter()
            .map(|dram| RamRegion::new(dram.range.start().raw(), Arc::clone(&dram.mapping)));
        let memory = GuestMemory::from_regions(regions.collect()).map_err(|_| RamError::Layout)?;
        Ok(Self {
            memory,
            pages,
            low,
            form,
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
        let mut plain = Self::plain(dram, HostPages::Transparent)?;
        let mut aliases = Vec::with_capacity(dram.len());
        let mut file_offset: u64 = 0;
        for &range in dram {
            aliases.push(Alias {
                mapping: Arc::new(reserve(range, HUGE_PAGE)?),
                file_offset,
            });
            file_offset = file_offset
                .checked_add(range.bytes())
                .ok_or(RamError::Layout)?;
        }
        let file = memory_file("guest-shared", file_offset)?;
        plain.form = Form::Split(Split {
            shared_bit,
            aliases,
            file,
            most_extents: mapping_limit().saturating_sub(MAPPINGS_OF_OTHERS) / 2,
        });
        Ok(plain)
    }

    /// All of RAM at its plain guest-physical addresses, whatever the state of each page; of RAM with a
    /// private form, the shared form.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The slots that KVM needs to have before the guest runs.
    #[must_use]
    pub fn slots(&self) -> Vec<RamSlot> {
        let low = self.low.iter().map(|dram| dram.slot(&dram.mapping, 0));
        let aliases = self.aliased().into_iter().flat_map(|split| {
            let bit = 1 << split.shared_bit;
            let ranges = self.low.iter().zip(&split.aliases);
            ranges.map(move |(dram, alias)| dram.slot(&alias.mapping, bit))
        });
        low.chain(aliases).collect()
    }

    /// The files that RAM is in; none when other processes cannot be given it.
    #[must_use]
    pub fn file_parts(&self) -> Vec<FilePart<'_>> {
        let parts = self.low.iter().filter_map(|dram| {
            let file = dram.file.as_ref()?.as_fd();
            let slot = dram.slot(&dram.mapping, 0);
            Some(FilePart { slot, file })
        });
        parts.collect()
    }

    /// What DMA tables map: each page as it is now, private or shared.
    ///
    /// # Errors
    /// None that [`GuestRam::plain`] has not ruled out already.
    pub fn dma_view(&self) -> Result<DmaView, RamError> {
        let regions = self
            .low
            .iter()
            .map(|dram| DmaRegion::new(dram.range.start().raw(), Arc::clone(&dram.mapping)));
        DmaView::from_regions(regions.collect()).map_err(|_| RamError::Layout)
    }

    /// The address in this process of what a DMA table maps for `range`. `None` when the range is not
    /// within one DRAM range.
    #[must_use]
    pub fn dma_address(&self, range: PageRange<Gpa>) -> Option<u64> {
        let dram = self.low.iter().find(|dram| dram.range.covers(range))?;
        let offset = range.start().offset_from(dram.range.start())?;
        host_number(dram.mapping.base()).checked_add(offset)
    }

    /// Into how many extents of one state the pages may fall before the host runs out of mappings for
    /// this process; each extent takes two.
    #[must_use]
    pub fn most_extents(&self) -> usize {
        self.aliased()
            .map_or(usize::MAX, |split| split.most_extents)
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
        let split = self.aliased().filter(|_| self.covers(range));
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

    fn aliased(&self) -> Option<&Split> {
        match &self.form {
            Form::Split(split) => Some(split),
            Form::Plain | Form::Private(_) => None,
        }
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
    fn new(range: PageRange<Gpa>, pages: HostPages, sharing: Sharing) -> Result<Self, RamError> {
        let mapping = reserve(range, pages.alignment())?;
        let pool = |source| RamError::Pool {
            range,
            pages,
            source,
        };
        let reserved = |source| RamError::Reserve { range, source };
        let bytes = mapping.bytes();
        let file = match (pages.file(range.bytes()).map_err(pool)?, sharing) {
            (Some(file), _) => {
                let backing = Backing::Pool(file.as_fd());
                mapping.replace(0, bytes, backing).map_err(pool)?;
                Some(file)
            }
            (None, Sharing::Files) => {
                let file = memory_file("guest-memory", range.bytes())?;
                let backing = Backing::File(file.as_fd(), 0);
                mapping.replace(0, bytes, backing).map_err(reserved)?;
                Some(file)
            }
            (None, Sharing::Process) => {
                let anonymous = mapping.replace(0, bytes, Backing::Anonymous);
                anonymous.map_err(reserved)?;
                None
            }
        };
        Ok(Self {
            range,
            mapping: Arc::new(mapping),
            file: match sharing {
                Sharing::Files => file,
                Sharing::Process => None,
            },
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

fn reserve(range: PageRange<Gpa>, alignment: usize) -> Result<Mapping, RamError> {
    usize::try_from(range.bytes())
        .map_err(|_| io::ErrorKind::OutOfMemory.into())
        .and_then(|bytes| Mapping::reserve(bytes, alignment))
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

/// A file of zeros in memory.
fn memory_file(name: &str, bytes: u64) -> Result<OwnedFd, RamError> {
    let file = gate("memfd_create").and_then(|()| {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, bytes)?;
        Ok(file)
    });
    file.map_err(|source| RamError::SharedFile { bytes, source })
}

/// Gives the memory of a part of `file` back to the host.
fn punch_hole(file: &OwnedFd, offset: u64, bytes: u64) -> io::Result<()> {
    gate("fallocate")?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, offset, bytes)?;
    Ok(())
}

/// A pointer as the number that KVM and VFIO take.
fn host_number(pointer: *mut u8) -> u64 {
    // No target has addresses wider than 64 bits.
    pointer.expose_provenance() as u64
}
