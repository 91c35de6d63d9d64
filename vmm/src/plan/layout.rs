//! From demands to addresses: the smallest width whose space holds everything.

use super::bounds::{ADDRESSES, Bounds, reach_of};
use super::machine::{Machine, Roomy, WindowSet};
use super::pack::{Block, Packing, Space, pack};
use super::span::{Span, Spans};
use crate::platform::SharedAlias;

/// What is to be placed, and what the placement must obey.
#[derive(Debug, Clone)]
pub(super) struct Problem<'a> {
    pub(super) machine: &'a Machine,
    pub(super) alias: SharedAlias,
    /// How an accepted device would name shared pages.
    pub(super) accepted: SharedAlias,
    /// The unit of DRAM in bytes, a power of two.
    pub(super) granule: u64,
    /// The widths that the host offers, ascending.
    pub(super) widths: &'a [u8],
    pub(super) bounds: &'a Bounds,
    /// DRAM must begin below this for the guest to have anything to bounce through.
    pub(super) bounce_below: u64,
}

/// Everything in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) width: u8,
    pub(super) dram: Vec<Span>,
    pub(super) platform: u64,
    pub(super) mem32: Option<Span>,
    pub(super) mem64: Option<Span>,
}

impl Layout {
    /// The last byte of DRAM.
    pub(super) fn last_dram_byte(&self) -> u64 {
        self.dram
            .last()
            .map_or(0, |span| span.end.saturating_sub(1))
    }

    /// The highest address that a device is told to use for DRAM.
    pub(super) fn highest_dma_address(&self, alias: SharedAlias) -> u64 {
        self.last_dram_byte()
            | match alias {
                SharedAlias::TopBit => reach_of(self.width) / 2,
                SharedAlias::InPlace => 0,
            }
    }
}

impl Problem<'_> {
    /// The layout of `memory` bytes of DRAM in the smallest space that holds it.
    pub(super) fn solve(&self, memory: u64) -> Option<Layout> {
        let mut widths = self.widths.iter();
        widths.find_map(|&width| self.layout(width, memory))
    }

    /// The most DRAM, in bytes, that any layout can have; 0 when there is none.
    pub(super) fn max_memory(&self) -> u64 {
        let mut most = 0;
        for &width in self.widths.iter().rev() {
            let Some(usable) = self.usable(width).filter(|usable| usable.bytes() > most) else {
                continue;
            };
            let found = self.compact(width, &usable);
            most = found.map_or(most, |(_, packing)| most.max(packing.free.bytes()));
        }
        most
    }

    fn layout(&self, width: u8, memory: u64) -> Option<Layout> {
        let usable = self.usable(width)?;
        if usable.bytes() < memory {
            return None;
        }
        let roomy = self.machine.roomy;
        let roomy = roomy.and_then(|roomy| self.roomy(width, memory, &usable, roomy));
        roomy.or_else(|| {
            let (set, packing) = self.compact(width, &usable)?;
            let dram = choose(&packing.free, memory)?;
            let mut starts = packing.starts.iter().skip(1);
            let mut window =
                |block: Option<Block>| block.and_then(|block| span_at(*starts.next()?, block.size));
            Some(Layout {
                width,
                dram,
                platform: *packing.starts.first()?,
                mem32: window(set.mem32),
                mem64: window(set.mem64),
            })
        })
    }

    /// The end of the guest-physical addresses that everything must lie below.
    fn end(&self, width: u8) -> u64 {
        match (self.alias, self.accepted) {
            (SharedAlias::TopBit, _) | (_, SharedAlias::TopBit) => reach_of(width) / 2,
            (SharedAlias::InPlace, SharedAlias::InPlace) => reach_of(width),
        }
    }

    fn usable(&self, width: u8) -> Option<Spans> {
        let reachable = self.bounds.dram(width, self.alias, self.granule)?;
        let beyond = Span::new(self.end(width), ADDRESSES.end);
        let fixed = self.machine.fixed.iter().copied().chain(beyond);
        Some(fixed.fold(reachable, |rest, span| rest.without(span)))
    }

    /// The packing that leaves the most for DRAM.
    fn compact(&self, width: u8, usable: &Spans) -> Option<(WindowSet, Packing)> {
        let space = Space {
            granule: self.granule,
            end: self.end(width),
            usable,
            fixed: &self.machine.fixed,
        };
        let mut best: Option<(WindowSet, Packing)> = None;
        for set in &self.machine.windows {
            let windows = [set.mem32, set.mem64].into_iter().flatten();
            let blocks: Vec<Block> = [self.machine.platform].into_iter().chain(windows).collect();
            let Some(packing) = pack(&space, &blocks) else {
                continue;
            };
            let found = packing.free.bytes();
            if best
                .as_ref()
                .is_none_or(|(_, best)| best.free.bytes() < found)
            {
                best = Some((*set, packing));
            }
        }
        best
    }

    /// The layout with slack and customary addresses, where there is room for it.
    fn roomy(&self, width: u8, memory: u64, usable: &Spans, roomy: Roomy) -> Option<Layout> {
        let end = self.end(width);
        let platform = self.machine.platform.size;
        if roomy.mmio.end > end || platform > roomy.platform.bytes() {
            return None;
        }
        let dram = lowest(&usable.without(roomy.mmio), memory)?;
        if dram.first()?.start >= self.bounce_below {
            return None;
        }
        let dram_end = dram.last()?.end;
        let (mem32, mem64) = self.machine.windows.iter().find_map(|set| {
            let mem32 = set.mem32.map_or(Some(None), |block| {
                let start = roomy.window.start.next_multiple_of(block.align);
                let window = Span::new(start, roomy.window.end)?;
                (block.size <= window.bytes()).then_some(Some(window))
            })?;
            let mem64 = set.mem64.map_or(Some(None), |block| {
                let start = dram_end.max(block.lowest).next_multiple_of(block.align);
                let span = span_at(start, block.size)?;
                (span.end <= end).then_some(Some(span))
            })?;
            Some((mem32, mem64))
        })?;
        Some(Layout {
            width,
            dram,
            platform: roomy.platform.start,
            mem32,
            mem64,
        })
    }
}

fn span_at(start: u64, bytes: u64) -> Option<Span> {
    Span::new(start, start.checked_add(bytes)?)
}

/// `memory` bytes from the bottom of `free`.
fn lowest(free: &Spans, memory: u64) -> Option<Vec<Span>> {
    take(free.as_slice().iter().copied(), memory)
}

/// `memory` bytes of `free` in few, large ranges: the lowest range that holds all, else the largest
/// ones.
fn choose(free: &Spans, memory: u64) -> Option<Vec<Span>> {
    let ranges = free.as_slice();
    if let Some(range) = ranges.iter().find(|range| range.bytes() >= memory) {
        return take([*range], memory);
    }
    let mut by_size = ranges.to_vec();
    by_size.sort_by_key(|range| (std::cmp::Reverse(range.bytes()), range.start));
    let mut chosen = take(by_size, memory)?;
    chosen.sort_unstable();
    Some(chosen)
}

fn take(ranges: impl IntoIterator<Item = Span>, memory: u64) -> Option<Vec<Span>> {
    let mut missing = memory;
    let mut taken = Vec::new();
    for range in ranges {
        let bytes = range.bytes().min(missing);
        taken.extend(span_at(range.start, bytes));
        missing = missing.saturating_sub(bytes);
    }
    (missing == 0 && !taken.is_empty()).then_some(taken)
}

#[cfg(test)]
mod tests;
