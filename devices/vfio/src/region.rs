//! What a function's regions are: BARs, expansion ROM, configuration space.

use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_ioctls::{VfioDevice, VfioRegionInfoCap};

/// A region of a PCI function by its VFIO index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionIndex(u32);

impl RegionIndex {
    /// Configuration space: 256 bytes, or 4096 for PCI Express and PCI-X 2.0.
    pub const CONFIG: Self = Self(VFIO_PCI_CONFIG_REGION_INDEX);

    /// The regions of the six base address registers.
    pub const BARS: [Self; 6] = [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// The region of base address register `bar`, or `None` beyond 5.
    #[must_use]
    pub const fn bar(bar: u8) -> Option<Self> {
        if bar > 5 {
            return None;
        }
        Some(Self(bar as u32))
    }

    /// VFIO's number for the region.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for RegionIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::CONFIG {
            f.write_str("configuration space")
        } else {
            write!(f, "BAR {}", self.0)
        }
    }
}

/// Bytes of a region: half open, `start < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// First byte beyond.
    pub end: u64,
}

impl Span {
    /// Length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// One region as VFIO describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    pub(crate) offset: u64,
    size: u64,
    readable: bool,
    writable: bool,
    mappable: Vec<Span>,
}

impl Region {
    pub(crate) fn read_from(device: &VfioDevice, index: RegionIndex) -> Self {
        let flags = device.get_region_flags(index.number());
        let size = device.get_region_size(index.number());
        let sparse = device
            .get_region_caps(index.number())
            .into_iter()
            .find_map(|cap| match cap {
                VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas),
                _ => None,
            });
        let whole = Span {
            start: 0,
            end: size,
        };
        let mappable = if flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            Vec::new()
        } else if let Some(areas) = sparse {
            let spans = areas.iter().filter_map(|area| {
                let end = area.offset.checked_add(area.size)?;
                (area.size > 0 && end <= size).then_some(Span {
                    start: area.offset,
                    end,
                })
            });
            spans.collect()
        } else {
            vec![whole]
        };
        Self {
            offset: device.get_region_offset(index.number()),
            size,
            readable: flags & VFIO_REGION_INFO_FLAG_READ != 0,
            writable: flags & VFIO_REGION_INFO_FLAG_WRITE != 0,
            mappable,
        }
    }

    /// Size in bytes; zero where the function has no such region.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it can be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether it can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The parts that can be mapped into a process, ascending.
    #[must_use]
    pub fn mappable(&self) -> &[Span] {
        &self.mappable
    }

    /// Where on the device file `bytes` bytes at `offset` lie, if they are all in the region.
    pub(crate) fn file_offset(&self, offset: u64, bytes: usize) -> Option<u64> {
        let end = offset.checked_add(u64::try_from(bytes).ok()?)?;
        if end > self.size {
            return None;
        }
        self.offset.checked_add(offset)
    }

    /// Whether every byte of `span` can be mapped.
    pub(crate) fn can_map(&self, span: Span) -> bool {
        span.start < span.end
            && self
                .mappable
                .iter()
                .any(|area| area.start <= span.start && span.end <= area.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region {
            offset: 1 << 40,
            size: 0x3000,
            readable: true,
            writable: true,
            mappable: vec![Span {
                start: 0x1000,
                end: 0x3000,
            }],
        }
    }

    #[test]
    fn an_access_that_leaves_the_region_has_no_file_offset() {
        let region = region();
        assert_eq!(region.file_offset(0x2ffc, 4), Some((1 << 40) + 0x2ffc));
        assert_eq!(region.file_offset(0x2ffd, 4), None);
        assert_eq!(region.file_offset(u64::MAX, 4), None);
    }

    #[test]
    fn only_a_span_within_one_mappable_area_can_be_mapped() {
        let region = region();
        let span = |start, end| Span { start, end };
        assert!(region.can_map(span(0x1000, 0x2000)));
        assert!(!region.can_map(span(0, 0x2000)));
        assert!(!region.can_map(span(0x2000, 0x4000)));
        assert!(!region.can_map(span(0x2000, 0x2000)));
    }

    #[test]
    fn there_are_six_bars() {
        assert_eq!(
            RegionIndex::bar(5).map(|bar| bar.to_string()).as_deref(),
            Some("BAR 5")
        );
        assert_eq!(RegionIndex::bar(6), None);
    }
}
