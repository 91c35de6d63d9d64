//! A sorted list of extents in chunks: a B-tree of two levels.
//!
//! A search goes through one index, which stays in the processor's cache, and one chunk. With a million
//! extents that is a few cache misses, where a tree of narrow nodes takes one and more for each of its
//! many levels.

use crate::addr::Address;

/// Extents in a chunk at most. Small in tests, so that they see chunks split and merge.
const CAPACITY: usize = if cfg!(test) { 4 } else { 128 };

/// Extents sorted by start; whether they overlap is the caller's business.
#[derive(Debug, Clone)]
pub(super) struct Chunks<A, V> {
    /// The first start in each chunk.
    firsts: Vec<A>,
    /// None is empty.
    chunks: Vec<Vec<Extent<A, V>>>,
    len: usize,
}

/// Where an extent is, until the next insertion or removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    chunk: usize,
    slot: usize,
}

/// A range from a start to an end, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent<A, V> {
    pub(super) start: A,
    pub(super) end: A,
    pub(super) value: V,
}

/// Extents in order.
#[derive(Debug)]
pub(super) struct Iter<'a, A, V> {
    list: &'a Chunks<A, V>,
    next: Position,
}

impl<A: Address, V: Copy> Iterator for Iter<'_, A, V> {
    type Item = Extent<A, V>;

    fn next(&mut self) -> Option<Extent<A, V>> {
        let extent = self.list.get(self.next).or_else(|| {
            // No chunk is empty: the next one goes on, unless this was the last.
            let chunk = self.next.chunk.saturating_add(1);
            self.next = Position { chunk, slot: 0 };
            self.list.get(self.next)
        })?;
        self.next.slot = self.next.slot.saturating_add(1);
        Some(extent)
    }
}

impl<A, V> Default for Chunks<A, V> {
    fn default() -> Self {
        Self {
            firsts: Vec::new(),
            chunks: Vec::new(),
            len: 0,
        }
    }
}

impl<A: Address, V: Copy> Chunks<A, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The last extent that starts at or below `address`.
    pub(super) fn at_or_below(&self, address: A) -> Option<Position> {
        let chunk = self.chunk_of(address);
        let extents = self.chunks.get(chunk)?;
        let above = extents.partition_point(|extent| extent.start <= address);
        let slot = above.checked_sub(1)?;
        Some(Position { chunk, slot })
    }

    pub(super) fn get(&self, at: Position) -> Option<Extent<A, V>> {
        self.chunks.get(at.chunk)?.get(at.slot).copied()
    }

    /// The extents from this one on; all of them from `None`.
    pub(super) fn iter_from(&self, at: Option<Position>) -> Iter<'_, A, V> {
        let next = at.unwrap_or(Position { chunk: 0, slot: 0 });
        Iter { list: self, next }
    }

    pub(super) fn set_end(&mut self, at: Position, end: A) {
        let chunk = self.chunks.get_mut(at.chunk);
        if let Some(extent) = chunk.and_then(|chunk| chunk.get_mut(at.slot)) {
            extent.end = end;
        }
    }

    /// Adds an extent whose start is not in the list yet.
    pub(super) fn insert(&mut self, extent: Extent<A, V>) {
        let below = self.at_or_below(extent.start);
        self.insert_above(below, extent);
    }

    /// Adds an extent next above the one at `below`, which is where its start belongs.
    pub(super) fn insert_above(&mut self, below: Option<Position>, extent: Extent<A, V>) {
        self.len = self.len.saturating_add(1);
        let (number, slot) = below.map_or((0, 0), |at| (at.chunk, at.slot.saturating_add(1)));
        let Some(chunk) = self.chunks.get_mut(number) else {
            self.firsts.push(extent.start);
            self.chunks.push(vec![extent]);
            return;
        };
        chunk.insert(slot, extent);
        if chunk.len() > CAPACITY {
            let upper = chunk.split_off(CAPACITY / 2);
            let next = number.saturating_add(1);
            let first = upper.first().map_or(extent.start, |first| first.start);
            self.firsts.insert(next, first);
            self.chunks.insert(next, upper);
        }
        if slot == 0
            && let Some(first) = self.firsts.get_mut(number)
        {
            *first = extent.start;
        }
    }

    /// Removes the extents that start in `start..end`, and hands each over in order.
    pub(super) fn take(&mut self, start: A, end: A, mut each: impl FnMut(Extent<A, V>)) {
        let lowest = self.chunk_of(start);
        let mut number = lowest;
        let mut emptied: usize = 0;
        while let Some(chunk) = self.chunks.get_mut(number) {
            let from = chunk.partition_point(|extent| extent.start < start);
            let to = chunk.partition_point(|extent| extent.start < end);
            let ends_here = to < chunk.len();
            self.len = self.len.saturating_sub(to.saturating_sub(from));
            chunk.drain(from..to).for_each(&mut each);
            match (chunk.first(), self.firsts.get_mut(number)) {
                (Some(extent), Some(first)) => *first = extent.start,
                _ => emptied = emptied.saturating_add(1),
            }
            if ends_here {
                break;
            }
            number = number.saturating_add(1);
        }
        // Emptied chunks lie side by side, below the one where the loop ended.
        let from = number.saturating_sub(emptied);
        self.chunks.drain(from..number);
        self.firsts.drain(from..number);
        self.join_small(lowest);
    }

    /// The number of the chunk where an extent that starts here belongs.
    fn chunk_of(&self, start: A) -> usize {
        let above = self.firsts.partition_point(|first| *first <= start);
        above.saturating_sub(1)
    }

    /// Joins a chunk that has become small with a neighbour, so that no memory is wasted on it.
    fn join_small(&mut self, number: usize) {
        let len = |number: usize| self.chunks.get(number).map(Vec::len);
        let fits = |low: Option<usize>, high: Option<usize>| {
            low.zip(high)
                .is_some_and(|(low, high)| low.saturating_add(high) <= CAPACITY / 2)
        };
        let below = number.checked_sub(1);
        if fits(len(number), len(number.saturating_add(1))) {
            self.join(number);
        } else if let Some(below) = below.filter(|below| fits(len(*below), len(number))) {
            self.join(below);
        }
    }

    /// Joins a chunk with the one above it.
    fn join(&mut self, number: usize) {
        let next = number.saturating_add(1);
        if next < self.chunks.len() {
            let mut above = self.chunks.remove(next);
            self.firsts.remove(next);
            if let Some(chunk) = self.chunks.get_mut(number) {
                chunk.append(&mut above);
            }
        }
    }
}
