//! What a kernel is told of memory: the E820 map, which PVH has as well.

use iommu::{Gpa, PageRange};

use super::low_memory;

/// What may be done with memory. The numbers are those of both protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Anything.
    Usable = 1,
    /// Nothing.
    Reserved = 2,
    /// ACPI tables are there.
    Acpi = 3,
}

/// A range of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) kind: Kind,
}

/// The map of a machine with this DRAM (ascending, the first MiB in it), with configuration space of PCI
/// at `ecam`, and with what its platform keeps of conventional memory.
pub(super) fn memory_map(
    dram: &[PageRange<Gpa>],
    ecam: Option<PageRange<Gpa>>,
    kept: Option<PageRange<Gpa>>,
) -> Vec<Entry> {
    let entry = |start: u64, end: u64, kind| Entry {
        start,
        bytes: end.saturating_sub(start),
        kind,
    };
    let conventional_end = low_memory::CONVENTIONAL_END.raw();
    let (acpi, low_end) = (low_memory::ACPI.raw(), low_memory::END.raw());
    let kept = kept.map_or((0, 0), |kept| (kept.start().raw(), kept.end().raw()));
    let mut map = vec![
        entry(0, kept.0, Kind::Usable),
        entry(kept.0, kept.1, Kind::Reserved),
        entry(kept.1, conventional_end, Kind::Usable),
        entry(conventional_end, acpi, Kind::Reserved),
        entry(acpi, low_end, Kind::Acpi),
    ];
    map.extend(dram.iter().map(|range| {
        let start = range.start().raw().max(low_end);
        entry(start, range.end().raw(), Kind::Usable)
    }));
    map.extend(ecam.map(|ecam| entry(ecam.start().raw(), ecam.end().raw(), Kind::Reserved)));
    map.retain(|entry| entry.bytes > 0);
    map.sort_by_key(|entry| entry.start);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
        PageRange::new(Gpa::new(start), bytes).unwrap()
    }

    fn ends(map: &[Entry]) -> Vec<(u64, u64, Kind)> {
        let entries = map.iter();
        entries
            .map(|entry| (entry.start, entry.start + entry.bytes, entry.kind))
            .collect()
    }

    #[test]
    fn the_map_ascends_and_covers_dram_but_for_what_boot_needs() {
        let dram = [range(0, 3 << 30), range(4 << 30, 1 << 30)];
        let map = ends(&memory_map(&dram, Some(range(0xe000_0000, 1 << 20)), None));
        let expected = [
            (0, 0x9_fc00, Kind::Usable),
            (0x9_fc00, 0xe_0000, Kind::Reserved),
            (0xe_0000, 0x10_0000, Kind::Acpi),
            (0x10_0000, 3 << 30, Kind::Usable),
            (0xe000_0000, 0xe010_0000, Kind::Reserved),
            (4 << 30, 5 << 30, Kind::Usable),
        ];
        assert_eq!(map, expected);
    }

    #[test]
    fn what_a_platform_keeps_is_not_usable() {
        let dram = [range(0, 1 << 30)];
        let map = ends(&memory_map(&dram, None, Some(range(0x1_0000, 0x3000))));
        let expected = [
            (0, 0x1_0000, Kind::Usable),
            (0x1_0000, 0x1_3000, Kind::Reserved),
            (0x1_3000, 0x9_fc00, Kind::Usable),
        ];
        assert_eq!(map[..3], expected);
    }
}
