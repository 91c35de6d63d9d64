//! Where in DRAM the kernel and the initial RAM disk go.

use iommu::addr::PAGE_SIZE;
use iommu::{Gpa, PageRange};

use super::bzimage::{ENTRY_64, Header};
use super::image::Linux;
use super::low_memory;
use super::vmlinux::{Segment, Vmlinux};
use crate::boot::igvm::Igvm;
use crate::boot::room::{DoesNotFit, Item, Piece, take};

/// A kernel is entered with page tables of the first 4 GiB, or without any: it lies below.
const KERNEL_END: u64 = 4 << 30;

/// Where everything goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// A kernel, and what comes with it.
    Linux(LinuxPlacement),
    /// Where an IGVM file says.
    Igvm,
}

/// Where a kernel goes, and what comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinuxPlacement {
    /// How the kernel is entered.
    pub entry: Entry,
    /// First byte of the initial RAM disk, if there is one.
    pub initrd: Option<Gpa>,
}

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// In 64-bit mode.
    Long {
        /// First byte of the kernel in memory.
        kernel: Gpa,
        /// Its first instruction.
        entry: Gpa,
    },
    /// By PVH, in 32-bit mode.
    Pvh {
        /// Its first instruction.
        entry: u32,
    },
}

/// Finds a place in `dram` (ascending, disjoint) for a kernel, and for an initial RAM
/// disk of `initrd` bytes.
pub(super) fn find(
    dram: &[PageRange<Gpa>],
    kernel: &Linux,
    initrd: Option<u64>,
) -> Result<LinuxPlacement, DoesNotFit> {
    let low = dram.first().map(Piece::of);
    low_memory(low)?;
    let below = dram.iter().map(Piece::of);
    let below = below.filter_map(|piece| piece.within(low_memory::END.raw(), KERNEL_END));
    let free: Vec<Piece> = below.collect();
    let (entry, kernel_end, initrd_end) = match kernel {
        Linux::BzImage(header) => {
            let kernel = load_address(&free, header)?;
            let entry = Entry::Long {
                kernel: Gpa::new(kernel),
                entry: Gpa::new(kernel.saturating_add(ENTRY_64)),
            };
            let end = kernel.saturating_add(header.init_size);
            (entry, end, header.initrd_max.saturating_add(1))
        }
        Linux::Vmlinux(vmlinux) => {
            let end = segments_end(&free, vmlinux)?;
            let entry = vmlinux.entry;
            (Entry::Pvh { entry }, end, KERNEL_END)
        }
    };
    let behind = free.iter();
    let behind = behind.filter_map(|piece| piece.within(kernel_end, initrd_end));
    let mut behind: Vec<Piece> = behind.collect();
    let place = |bytes| {
        let limits = " behind the kernel, below 4 GiB";
        take(
            &mut behind,
            Item {
                limits,
                ..Item::anywhere("initrd", bytes, PAGE_SIZE)
            },
        )
    };
    let initrd = initrd.map(place).transpose()?;
    Ok(LinuxPlacement {
        entry,
        initrd: initrd.map(Gpa::new),
    })
}

/// All that an IGVM file names has to be memory.
pub(super) fn where_it_says(dram: &[PageRange<Gpa>], igvm: &Igvm) -> Result<(), DoesNotFit> {
    for range in igvm.memory() {
        if !dram.iter().any(|memory| memory.covers(range)) {
            let parts = dram.iter().filter_map(|memory| memory.intersection(range));
            return Err(DoesNotFit {
                what: "IGVM file",
                bytes: range.bytes(),
                free: parts.map(PageRange::bytes).max().unwrap_or(0),
                limits: " where it says",
            });
        }
    }
    Ok(())
}

/// The first MiB has to be memory: processors start there, and so does all that a kernel is told.
fn low_memory(first: Option<Piece>) -> Result<(), DoesNotFit> {
    let bytes = low_memory::END.raw();
    let free = match first {
        Some(piece) if piece.start == 0 => piece.end,
        _ => 0,
    };
    match free >= bytes {
        true => Ok(()),
        false => Err(DoesNotFit {
            what: "start of the first processor",
            bytes,
            free,
            limits: " at address 0",
        }),
    }
}

/// The address that the kernel prefers, or the next where it can be: it would move up there itself.
fn load_address(free: &[Piece], header: &Header) -> Result<u64, DoesNotFit> {
    let item = Item {
        what: "kernel",
        bytes: header.init_size,
        alignment: header.alignment.unwrap_or(1),
        limits: " from its preferred address on, below 4 GiB",
    };
    let end = match header.alignment {
        Some(_) => KERNEL_END,
        None => header.preferred.saturating_add(header.init_size),
    };
    let from = free.iter();
    let from = from.filter_map(|piece| piece.within(header.preferred, end));
    take(&mut from.collect::<Vec<_>>(), item)
}

/// The end of the last segment, when all of them are in memory.
fn segments_end(free: &[Piece], vmlinux: &Vmlinux) -> Result<u64, DoesNotFit> {
    let mut last = 0;
    for &Segment { start, bytes } in &vmlinux.segments {
        let end = start.checked_add(bytes);
        let holds =
            |piece: &&Piece| piece.start <= start && end.is_some_and(|end| end <= piece.end);
        let (Some(_), Some(end)) = (free.iter().find(holds), end) else {
            let room = free
                .iter()
                .filter_map(|piece| piece.within(start, u64::MAX));
            let mut room = room.filter(|piece| piece.start == start);
            return Err(DoesNotFit {
                what: "kernel",
                bytes,
                free: room.next().map_or(0, |piece| piece.end - piece.start),
                limits: " where it was linked to run",
            });
        };
        last = last.max(end);
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
