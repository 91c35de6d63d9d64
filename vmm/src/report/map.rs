//! The address space as rows, ascending: what both the text and the picture show.

use super::document::{Dma, Region, RegionKind, Report};
use crate::host::facts::PciAddress;

/// A row of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// First address.
    pub(super) start: u64,
    /// Length in bytes.
    pub(super) size: u64,
    /// What is there.
    pub(super) content: Content,
}

/// What a row of the map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Something answers there.
    Region(RegionKind),
    /// Nothing does.
    Gap,
}

impl Row {
    pub(super) fn end(self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// The rows of the addresses below `end`: the regions of `layout`, those that adjoin and are of one
/// kind together, and the gaps between them. No row crosses a `cut`.
pub(super) fn rows(layout: &[Region], end: u64, cuts: &[u64]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut next = 0;
    for region in layout {
        let content = Content::Region(region.kind);
        let start = region.start.0;
        if start > next {
            rows.push(gap(next, start));
        }
        match rows.last_mut() {
            Some(last) if last.content == content && last.end() == start => {
                last.size = last.size.saturating_add(region.size);
            }
            _ => rows.push(Row {
                start,
                size: region.size,
                content,
            }),
        }
        next = start.saturating_add(region.size);
    }
    if end > next {
        rows.push(gap(next, end));
    }
    rows.into_iter().flat_map(|row| divide(row, cuts)).collect()
}

/// The parts of `row` between the cuts.
fn divide(row: Row, cuts: &[u64]) -> Vec<Row> {
    let inside = cuts
        .iter()
        .filter(|cut| row.start < **cut && **cut < row.end());
    let starts = std::iter::once(row.start).chain(inside.copied());
    let ends = cuts
        .iter()
        .copied()
        .filter(|cut| row.start < *cut && *cut < row.end())
        .chain(std::iter::once(row.end()));
    starts
        .zip(ends)
        .map(|(start, end)| Row {
            start,
            size: end.saturating_sub(start),
            ..row
        })
        .collect()
}

fn gap(start: u64, end: u64) -> Row {
    Row {
        start,
        size: end.saturating_sub(start),
        content: Content::Gap,
    }
}

/// How a report's address space divides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halves {
    /// End of the addresses that have a row of their own.
    pub(super) low_end: u64,
    /// What to add for the shared alias, where there is one.
    pub(super) alias: Option<u64>,
}

/// How the address space of `report` divides, when it has one.
pub(super) fn halves(report: &Report) -> Option<Halves> {
    let bits = report.ipa_bits?;
    let size = 1_u64.checked_shl(u32::from(bits))?;
    let alias = match report.shared_bit {
        Some(bit) => Some(1_u64.checked_shl(u32::from(bit))?),
        None => None,
    };
    Some(Halves {
        low_end: alias.unwrap_or(size),
        alias,
    })
}

/// Addresses at which the reach of devices ends, with those devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// The first address beyond it.
    pub(super) end: u64,
    /// How many address bits that is.
    pub(super) bits: u8,
    /// Whose it is, in the order of the config.
    pub(super) devices: Vec<PciAddress>,
}

/// Where within the space of `bits` bits the reach of the report's devices ends, ascending.
pub(super) fn reaches(report: &Report, bits: u8) -> Vec<Reach> {
    let mut reaches: Vec<Reach> = Vec::new();
    for device in report.devices.iter().filter(|d| d.dma == Dma::Direct) {
        let width = device.dma_bits;
        if width >= bits {
            continue;
        }
        match reaches.iter_mut().find(|reach| reach.bits == width) {
            Some(reach) => reach.devices.push(device.pci),
            None => reaches.push(Reach {
                end: 1_u64.checked_shl(u32::from(width)).unwrap_or(u64::MAX),
                bits: width,
                devices: vec![device.pci],
            }),
        }
    }
    reaches.sort_by_key(|reach| reach.bits);
    reaches
}

/// "0000:00:04.0", or "0000:00:04.0 and 2 more".
pub(super) fn names(devices: &[PciAddress]) -> String {
    match devices {
        [] => String::new(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::Hex;

    fn region(start: u64, size: u64, kind: RegionKind) -> Region {
        Region {
            start: Hex(start),
            size,
            kind,
        }
    }

    #[test]
    fn rows_cover_the_space_join_what_adjoins_and_end_at_cuts() {
        let rows = rows(
            &[
                region(0x1000, 0x1000, RegionKind::Serial),
                region(0x4000, 0x2000, RegionKind::Memory),
                region(0x6000, 0x2000, RegionKind::Memory),
            ],
            0x1_0000,
            &[0x1000, 0x5000],
        );
        let spans: Vec<_> = rows.iter().map(|row| (row.start, row.end())).collect();
        assert_eq!(
            spans,
            [
                (0, 0x1000),
                (0x1000, 0x2000),
                (0x2000, 0x4000),
                (0x4000, 0x5000),
                (0x5000, 0x8000),
                (0x8000, 0x1_0000)
            ]
        );
        assert_eq!(rows[3].content, Content::Region(RegionKind::Memory));
    }

    #[test]
    fn an_empty_layout_is_one_gap() {
        assert_eq!(rows(&[], 0x1000, &[]), [gap(0, 0x1000)]);
    }
}
