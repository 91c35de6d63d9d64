//! The packing that leaves the most DRAM.
//!
//! DRAM comes in granules: a granule that MMIO touches is lost to it. Blocks of MMIO go where they
//! cost the fewest usable granules, which may be inside a hole that no DRAM can use.
//!
//! ```text
//! usable   ████████████████████░░░░░░░░████████████████░░░░░░    ░ reserved, or out of reach
//! blocks   PPw·                      MMMMMM                      · lost to rounding
//! DRAM         ████████████████            ████████████
//! ```
//!
//! The search is exact. Blocks that lie in one unbroken run of granules form a *cluster*, packed as
//! tightly as its order allows around its most aligned block; what a cluster costs is then a
//! piecewise linear function of its place, least next to a boundary: of usable memory, or of
//! another cluster. Trying every partition into clusters, every order and every boundary therefore
//! meets the optimum. There are at most three blocks, and few holes in practice.

use super::span::{Span, Spans, align_down};

/// MMIO to be placed: `size` bytes at a multiple of `align`, inside `lowest..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) size: u64,
    /// A power of two.
    pub(super) align: u64,
    pub(super) lowest: u64,
    pub(super) end: u64,
}

/// Where blocks can go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Space<'a> {
    /// Unit of DRAM, a power of two.
    pub(super) granule: u64,
    /// End of the space, a multiple of the granule.
    pub(super) end: u64,
    /// What can be DRAM, in whole granules.
    pub(super) usable: &'a Spans,
    /// What can be neither DRAM nor MMIO, in whole granules and outside `usable`.
    pub(super) fixed: &'a [Span],
}

/// A placement of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packing {
    /// The start of each block.
    pub(super) starts: Vec<u64>,
    /// What remains for DRAM.
    pub(super) free: Spans,
}

/// Places `blocks` (at most three) such that the most DRAM remains, in few ranges where there is a
/// choice, low blocks before high ones. `None` when they do not fit at all.
pub(super) fn pack(space: &Space<'_>, blocks: &[Block]) -> Option<Packing> {
    let mut search = Search {
        space,
        starts: vec![0; blocks.len()],
        taken: space.fixed.to_vec(),
        best: None,
    };
    // Blocks without any gap, as many as possible of them where no DRAM can be.
    let bytes: u64 = blocks.iter().map(|block| block.size).sum();
    let barren = space.end.saturating_sub(space.usable.bytes());
    let floor = bytes.next_multiple_of(space.granule).saturating_sub(barren);
    for partition in partitions(blocks.len()) {
        if !search.promises(floor, space.usable.as_slice().len()) {
            break;
        }
        let clusters: Option<Vec<Cluster>> = partition
            .iter()
            .map(|members| search.cluster(blocks, members))
            .collect();
        if let Some(clusters) = clusters {
            search.place(&clusters.iter().collect::<Vec<_>>(), space.usable, 0);
        }
    }
    search.best.map(|best| best.packing)
}

/// Blocks in an unbroken run of granules, and the least that they can cost.
struct Cluster {
    shapes: Vec<Shape>,
    least_cost: u64,
}

/// One tight order of a cluster, which may stand at `n * period - before` for `n` in `first..=last`.
struct Shape {
    /// Each block with its distance from the start.
    offsets: Vec<(usize, u64)>,
    period: u64,
    before: u64,
    after: u64,
    first: u64,
    last: u64,
}

/// A place for a shape.
struct Spot<'a> {
    shape: &'a Shape,
    span: Span,
    cost: u64,
    /// How many ranges remain for DRAM.
    ranges: usize,
}

struct Best {
    lost: u64,
    packing: Packing,
}

struct Search<'a> {
    space: &'a Space<'a>,
    starts: Vec<u64>,
    taken: Vec<Span>,
    best: Option<Best>,
}

impl Search<'_> {
    fn cluster(&self, blocks: &[Block], members: &[usize]) -> Option<Cluster> {
        let shapes: Vec<Shape> = orders(members)
            .iter()
            .flat_map(|order| self.shapes(blocks, order))
            .collect();
        let usable = self.space.usable;
        let spans = shapes.iter().flat_map(|shape| self.spans(shape, usable));
        let least_cost = spans.map(|span| usable.bytes_in(span)).min()?;
        Some(Cluster { shapes, least_cost })
    }

    /// The tight shapes of blocks in `order`.
    fn shapes(&self, blocks: &[Block], order: &[usize]) -> Vec<Shape> {
        let align = order.iter().map(|&i| blocks[i].align).max().unwrap_or(1);
        if align < self.space.granule {
            // Every granule looks the same, except that a block may have to keep off address 0.
            let first = blocks[order[0]];
            let off_zero = (1..self.space.granule).contains(&first.lowest);
            let leads = [Some(0), off_zero.then_some(first.align)];
            return leads
                .into_iter()
                .flatten()
                .filter_map(|lead| self.shape(blocks, ascending(blocks, order, lead), 0))
                .collect();
        }
        let anchor = order.iter().position(|&i| blocks[i].align == align);
        let (left, right) = order.split_at(anchor.unwrap_or(0));
        // Distances below the anchor are found by mirroring: they are measured from the top of a
        // room that is certainly large enough.
        let room = left
            .iter()
            .map(|&i| blocks[i].size.next_multiple_of(align))
            .sum::<u64>();
        let mut top = room;
        let mut offsets = Vec::new();
        for &i in left.iter().rev() {
            top = align_down(top.saturating_sub(blocks[i].size), blocks[i].align);
            offsets.push((i, top));
        }
        let before = (room.saturating_sub(top)).next_multiple_of(self.space.granule);
        let start = room.saturating_sub(before);
        offsets.extend(ascending(blocks, right, room));
        for (_, offset) in &mut offsets {
            *offset = offset.saturating_sub(start);
        }
        self.shape(blocks, offsets, before).into_iter().collect()
    }

    /// The shape with these offsets, if there is a place for it.
    fn shape(&self, blocks: &[Block], offsets: Vec<(usize, u64)>, before: u64) -> Option<Shape> {
        let granule = self.space.granule;
        let align = offsets.iter().map(|&(i, _)| blocks[i].align).max()?;
        let period = align.max(granule);
        let bytes = offsets.iter().map(|&(i, o)| o + blocks[i].size).max()?;
        let bytes = bytes.next_multiple_of(granule);
        let mut lowest = 0;
        let mut highest = self.space.end.checked_sub(bytes)?;
        for &(i, offset) in &offsets {
            lowest = lowest.max(blocks[i].lowest.saturating_sub(offset));
            let room = blocks[i].end.checked_sub(blocks[i].size)?;
            highest = highest.min(room.checked_sub(offset)?);
        }
        let first = (lowest + before).div_ceil(period);
        let last = (highest + before) / period;
        (first <= last).then_some(Shape {
            offsets,
            period,
            before,
            after: bytes.checked_sub(before)?,
            first,
            last,
        })
    }

    /// The places of `shape` next to a boundary.
    fn spans(&self, shape: &Shape, free: &Spans) -> Vec<Span> {
        let whole = Span {
            start: 0,
            end: self.space.end,
        };
        let edges = free.as_slice().iter().chain(&self.taken).chain([&whole]);
        let mut places: Vec<u64> = edges
            .flat_map(|span| [span.start, span.end])
            .flat_map(|edge| [edge + shape.before, edge.saturating_sub(shape.after)])
            .flat_map(|near| [near / shape.period, near.div_ceil(shape.period)])
            .map(|place| place.clamp(shape.first, shape.last))
            .collect();
        places.sort_unstable();
        places.dedup();
        let span = |place: u64| {
            let anchor = place * shape.period;
            let span = Span {
                start: anchor.saturating_sub(shape.before),
                end: anchor + shape.after,
            };
            let clear = self.taken.iter().all(|taken| !taken.overlaps(span));
            clear.then_some(span)
        };
        places.into_iter().filter_map(span).collect()
    }

    /// The places of a cluster, the best first.
    fn spots<'s>(&self, cluster: &'s Cluster, free: &Spans) -> Vec<Spot<'s>> {
        let mut spots: Vec<Spot<'_>> = Vec::new();
        for shape in &cluster.shapes {
            let spans = self.spans(shape, free).into_iter();
            spots.extend(spans.map(|span| Spot {
                shape,
                span,
                cost: free.bytes_in(span),
                ranges: free.ranges_without(span),
            }));
        }
        spots.sort_by_key(|spot| (spot.cost, spot.ranges, spot.span));
        spots
    }

    /// Places `clusters` in every order, keeping the best.
    fn place(&mut self, clusters: &[&Cluster], free: &Spans, lost: u64) {
        let least: u64 = clusters.iter().map(|cluster| cluster.least_cost).sum();
        if !self.promises(lost + least, free.as_slice().len()) {
            return;
        }
        if clusters.is_empty() {
            let (starts, free) = (self.starts.clone(), free.clone());
            let packing = Packing { starts, free };
            self.best = Some(Best { lost, packing });
        }
        for (i, cluster) in clusters.iter().enumerate() {
            let others = [&clusters[..i], &clusters[i + 1..]].concat();
            let least = least - cluster.least_cost;
            for spot in self.spots(cluster, free) {
                if !self.promises(lost + spot.cost + least, spot.ranges) {
                    continue;
                }
                for &(block, offset) in &spot.shape.offsets {
                    self.starts[block] = spot.span.start + offset;
                }
                self.taken.push(spot.span);
                self.place(&others, &free.without(spot.span), lost + spot.cost);
                self.taken.pop();
            }
        }
    }

    /// Whether a solution that loses at least `lost`, and leaves about so many ranges, can be better
    /// than the best so far.
    fn promises(&self, lost: u64, ranges: usize) -> bool {
        self.best
            .as_ref()
            .is_none_or(|best| (lost, ranges) < (best.lost, best.packing.free.as_slice().len()))
    }
}

/// Offsets of the blocks in `order`, each as low as its alignment allows, from `at` on.
fn ascending(blocks: &[Block], order: &[usize], at: u64) -> Vec<(usize, u64)> {
    let mut end = at;
    let mut offsets = Vec::with_capacity(order.len());
    for &i in order {
        let offset = end.next_multiple_of(blocks[i].align);
        offsets.push((i, offset));
        end = offset + blocks[i].size;
    }
    offsets
}

/// Every way to split `count` blocks into groups, fewest groups first.
fn partitions(count: usize) -> Vec<Vec<Vec<usize>>> {
    let mut partitions: Vec<Vec<Vec<usize>>> = vec![Vec::new()];
    for block in 0..count {
        partitions = partitions
            .iter()
            .flat_map(|groups| {
                (0..=groups.len()).map(move |group| {
                    let mut groups = groups.clone();
                    match groups.get_mut(group) {
                        Some(members) => members.push(block),
                        None => groups.push(vec![block]),
                    }
                    groups
                })
            })
            .collect();
    }
    partitions.sort_by_key(Vec::len);
    partitions
}

/// Every order of `items`.
fn orders(items: &[usize]) -> Vec<Vec<usize>> {
    let Some((&first, rest)) = items.split_first() else {
        return vec![Vec::new()];
    };
    orders(rest)
        .iter()
        .flat_map(|order| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, first);
                order
            })
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
