//! Which pages of a Realm are populated.

use iommu::addr::RangeError;
use iommu::{Gpa, PageRange};

/// Pages of the host may be as large as this: 64 KiB. What is populated begins and ends on it.
const GRANULE: u64 = 64 << 10;

/// The pages that hold `parts`, each a first byte and a length, ascending and none twice: a part is
/// aligned out, and parts that come to touch are one.
///
/// What is populated comes from the same offset in guest memory, so that moving a start down moves its
/// source as well.
///
/// # Errors
/// When a part ends beyond all addresses.
pub fn regions(
    parts: impl IntoIterator<Item = (Gpa, u64)>,
) -> Result<Vec<PageRange<Gpa>>, RangeError> {
    let mut bounds = Vec::new();
    for (start, bytes) in parts.into_iter().filter(|(_, bytes)| *bytes != 0) {
        let end = start.raw().checked_add(bytes);
        let end = end.and_then(|end| end.checked_next_multiple_of(GRANULE));
        let end = end.ok_or(RangeError::Overflow {
            start: start.raw(),
            bytes,
        })?;
        bounds.push((start.raw() - start.raw() % GRANULE, end));
    }
    bounds.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in bounds {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    let ranges = merged.into_iter();
    ranges
        .map(|(start, end)| PageRange::from_bounds(Gpa::new(start), Gpa::new(end)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let parts = parts
            .iter()
            .map(|(start, bytes)| (Gpa::new(*start), *bytes));
        let found = regions(parts).unwrap().into_iter();
        found
            .map(|range| (range.start().raw(), range.end().raw()))
            .collect()
    }

    #[test]
    fn parts_are_aligned_out_to_pages_of_any_host() {
        assert_eq!(cut(&[(0x4000_0000, 1)]), [(0x4000_0000, 0x4001_0000)]);
        assert_eq!(cut(&[(0x4001_f000, 0x2000)]), [(0x4001_0000, 0x4003_0000)]);
    }

    #[test]
    fn no_page_is_populated_twice() {
        let kernel = (0x4000_0000, 0x12_3456);
        let initrd = (0x4012_4000, 0x10_0000);
        let tree = (0x5000_0000, 0x1234);
        assert_eq!(
            cut(&[tree, initrd, kernel]),
            [(0x4000_0000, 0x4023_0000), (0x5000_0000, 0x5001_0000)]
        );
        assert_eq!(cut(&[kernel, kernel]), cut(&[kernel]));
    }

    #[test]
    fn parts_that_touch_are_one_and_empty_ones_are_none() {
        assert_eq!(
            cut(&[(0x1_0000, 0x1_0000), (0x2_0000, 1), (0x9_0000, 0)]),
            [(0x1_0000, 0x3_0000)]
        );
        assert_eq!(cut(&[]), []);
    }

    #[test]
    fn a_part_beyond_all_addresses_is_refused() {
        assert!(regions([(Gpa::new(u64::MAX), 2)]).is_err());
        assert!(regions([(Gpa::new(u64::MAX - 1), 1)]).is_err());
    }
}
