//! Where a function's BARs answer, and which of their pages the guest reaches without an exit.
//!
//! ```text
//!            decoding on, address in a window
//!   ┌─────────┐ ───────────────────────────────> ┌────────────────────────────────┐
//!   │ silent  │                                  │ placed at A: direct pages in   │
//!   └─────────┘ <─────────────────────────────── │ the guest, the others trapped  │
//!            decoding off, other address, D3     └────────────────────────────────┘
//! ```
//! A BAR that moves goes by way of silent. Not direct are: I/O ports, BARs smaller than a page of the
//! host, pages that hold the MSI-X table or pending bits, and what VFIO cannot map.

use std::io;
use std::ops::Range;

use iommu::Gpa;

use super::physical::{BarMapper, PhysicalFunction};
use crate::pci::{AddressSpace, Bar, BarIndex, MsixCapability, TableLocation};
use crate::rate_limit::RateLimit;

static MAP_FAILURES: RateLimit = RateLimit::per_second(5);

/// Bytes of a BAR: half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// First byte beyond.
    pub end: u64,
}

/// A range of addresses that the root complex passes on: BARs outside of all windows are silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarWindow {
    /// What is passed on.
    pub space: AddressSpace,
    /// Its addresses: guest-physical ones for memory.
    pub addresses: Range<u64>,
}

/// A BAR and where it answers.
struct Placement {
    bar: Bar,
    /// The parts that can be in the guest: whole pages, ascending.
    direct: Vec<Span>,
    /// Where it answers now.
    at: Option<u64>,
    /// The parts that are in the guest now.
    mapped: Vec<Span>,
}

/// The BARs of one function.
pub(super) struct Decoder {
    windows: Vec<BarWindow>,
    placements: Vec<Placement>,
    mapper: Box<dyn BarMapper>,
}

impl Decoder {
    /// All BARs silent.
    pub(super) fn new(
        bars: &[Bar],
        msix: Option<&MsixCapability>,
        windows: Vec<BarWindow>,
        mapper: Box<dyn BarMapper>,
        physical: &dyn PhysicalFunction,
    ) -> Self {
        let page = mapper.page_bytes();
        let tables = msix.map_or(Vec::new(), |msix| vec![msix.table(), msix.pending()]);
        let placement = |bar: &Bar| Placement {
            bar: *bar,
            direct: direct_spans(bar, &physical.bar_mappable(bar.index()), &tables, page),
            at: None,
            mapped: Vec::new(),
        };
        Self {
            windows,
            placements: bars.iter().map(placement).collect(),
            mapper,
        }
    }

    /// Silences every BAR that is not to answer where it does: `wanted` tells the address that the
    /// guest has programmed, or `None` while decoding is off.
    pub(super) fn retract(&mut self, wanted: impl Fn(&Bar) -> Option<u64>) {
        for placement in &mut self.placements {
            if placement.at.is_some() && placement.at != wanted(&placement.bar) {
                placement.at = None;
                for span in std::mem::take(&mut placement.mapped) {
                    let index = placement.bar.index();
                    report(index, "out of", &self.mapper.unmap(index, span));
                }
            }
        }
    }

    /// Lets every silent BAR that is to answer do so, if its address is in a window.
    pub(super) fn place(&mut self, wanted: impl Fn(&Bar) -> Option<u64>) {
        for placement in &mut self.placements {
            let Some(at) = wanted(&placement.bar) else {
                continue;
            };
            if placement.at.is_some() || !is_in_window(&self.windows, &placement.bar, at) {
                continue;
            }
            placement.at = Some(at);
            let index = placement.bar.index();
            for &span in &placement.direct {
                // Within a window, so that it cannot overflow.
                let gpa = Gpa::new(at.saturating_add(span.start));
                if report(index, "into", &self.mapper.map(index, span, gpa)) {
                    placement.mapped.push(span);
                }
            }
        }
    }

    /// The BAR that answers all `bytes` bytes at `address`, and the offset into it.
    pub(super) fn claims(
        &self,
        space: AddressSpace,
        address: u64,
        bytes: u64,
    ) -> Option<(BarIndex, u64)> {
        self.placements.iter().find_map(|placement| {
            let offset = address.checked_sub(placement.at?)?;
            let end = offset.checked_add(bytes)?;
            let hit = placement.bar.space() == space && end <= placement.bar.size();
            hit.then_some((placement.bar.index(), offset))
        })
    }
}

/// Logs a failure at a bounded rate; whether there was none.
fn report(bar: BarIndex, way: &str, result: &io::Result<()>) -> bool {
    if let Err(error) = result
        && let Some(skipped) = MAP_FAILURES.permit()
    {
        tracing::warn!(%bar, skipped, "cannot map pages {way} the guest: {error}");
    }
    result.is_ok()
}

fn is_in_window(windows: &[BarWindow], bar: &Bar, at: u64) -> bool {
    at.checked_add(bar.size()).is_some_and(|end| {
        windows.iter().any(|window| {
            window.space == bar.space()
                && window.addresses.start <= at
                && end <= window.addresses.end
        })
    })
}

/// The whole pages of `mappable` that hold no byte of `tables`.
fn direct_spans(bar: &Bar, mappable: &[Span], tables: &[TableLocation], page: u64) -> Vec<Span> {
    if bar.space() == AddressSpace::Io || bar.size() < page {
        return Vec::new();
    }
    let mut spans: Vec<Span> = mappable
        .iter()
        .map(|span| Span {
            start: span.start.next_multiple_of(page),
            end: span.end.min(bar.size()) / page * page,
        })
        .collect();
    for table in tables.iter().filter(|table| table.bar == bar.index()) {
        let hole = Span {
            start: table.offset / page * page,
            end: table
                .offset
                .saturating_add(table.bytes)
                .next_multiple_of(page),
        };
        spans = spans
            .into_iter()
            .flat_map(|span| without(span, hole))
            .collect();
    }
    spans.retain(|span| span.start < span.end);
    spans
}

/// What is left of `span` below and above `hole`; either may be empty.
fn without(span: Span, hole: Span) -> [Span; 2] {
    [
        Span {
            start: span.start,
            end: span.end.min(hole.start),
        },
        Span {
            start: span.start.max(hole.end),
            end: span.end,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::BarKind;

    const PAGE: u64 = 0x1000;

    fn memory(size: u64) -> Bar {
        let kind = BarKind::Memory32 {
            prefetchable: false,
        };
        Bar::new(BarIndex::new(0).unwrap(), kind, size).unwrap()
    }

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    fn table(offset: u64, bytes: u64) -> TableLocation {
        TableLocation {
            bar: BarIndex::new(0).unwrap(),
            offset,
            bytes,
        }
    }

    #[test]
    fn pages_of_the_msix_table_are_not_direct() {
        let tables = [table(0x2000, 0x410), table(0x3000, 8)];
        let direct = direct_spans(&memory(0x8000), &[span(0, 0x8000)], &tables, PAGE);
        assert_eq!(direct, [span(0, 0x2000), span(0x4000, 0x8000)]);
    }

    #[test]
    fn a_table_in_the_middle_of_a_page_takes_the_page() {
        let tables = [table(0x1ff0, 0x20)];
        let direct = direct_spans(&memory(0x4000), &[span(0, 0x4000)], &tables, PAGE);
        assert_eq!(direct, [span(0, 0x1000), span(0x3000, 0x4000)]);
    }

    #[test]
    fn a_bar_below_a_page_and_ports_are_never_direct() {
        assert_eq!(
            direct_spans(&memory(0x800), &[span(0, 0x1000)], &[], PAGE),
            []
        );
        let ports = Bar::new(BarIndex::new(1).unwrap(), BarKind::Io, 0x2000).unwrap();
        assert_eq!(direct_spans(&ports, &[span(0, 0x2000)], &[], PAGE), []);
    }

    #[test]
    fn larger_host_pages_make_fewer_of_them_direct() {
        let tables = [table(0x2000, 0x10)];
        let direct = direct_spans(&memory(0x2_0000), &[span(0, 0x2_0000)], &tables, 0x1_0000);
        assert_eq!(direct, [span(0x1_0000, 0x2_0000)]);
    }
}
