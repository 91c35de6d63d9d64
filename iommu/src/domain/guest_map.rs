//! The mappings that a guest has made in one domain.

use std::collections::{BTreeMap, BTreeSet};

use super::Translation;
use crate::addr::{Iova, Ipa, PageRange};
use crate::mapping::Target;
use crate::range_map::{Overlap, RangeMap};

/// What the guest has mapped in a domain, found by IOVA and by name.
///
/// Many IOVAs may translate to one page, so names are no keys. They are indexed by the size of their
/// mapping to a power of two: one that holds a given page begins at most that size below it, which
/// bounds the search in each class.
#[derive(Debug, Clone, Default)]
pub struct GuestMap {
    by_iova: RangeMap<Iova, Target>,
    by_name: BTreeMap<SizeClass, BTreeSet<(Ipa, Iova)>>,
}

/// Binary logarithm of a mapping's size in pages.
type SizeClass = u32;

/// An unmap that would take a part of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("would split the mapping at {mapping}")]
pub struct Splits {
    /// The first mapping that would be split.
    pub mapping: PageRange<Iova>,
}

impl GuestMap {
    /// How many mappings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_iova.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_iova.is_empty()
    }

    /// All mappings in order of IOVA.
    pub fn iter(&self) -> impl Iterator<Item = Translation> {
        self.by_iova.iter().map(translation)
    }

    /// The mappings that share a page with `window`, whole, in order.
    pub fn overlapping(
        &self,
        window: PageRange<Iova>,
    ) -> impl Iterator<Item = Translation> + use<'_> {
        self.by_iova.overlapping(window).map(translation)
    }

    /// The IOVAs that translate to a page of `names`.
    pub fn naming(&self, names: PageRange<Ipa>) -> impl Iterator<Item = PageRange<Iova>> + use<'_> {
        let candidates = self.by_name.iter().flat_map(move |(&class, index)| {
            let longest = PageRange::<Ipa>::longest_in_class(class);
            let lowest = names.start().raw().saturating_sub(longest);
            let low = (Ipa::new(lowest), Iova::new(0));
            let high = (names.end(), Iova::new(0));
            index.range(low..high)
        });
        candidates.filter_map(move |&(name, iova)| {
            let (iovas, _) = self.by_iova.at(iova)?;
            let part = iovas.rebased(name)?.intersection(names)?;
            let skipped = part.start().offset_from(name)?;
            part.rebased(iova.checked_add(skipped)?)
        })
    }

    /// Adds a mapping.
    ///
    /// # Errors
    /// When an IOVA of it is mapped already; nothing is changed.
    pub(crate) fn insert(&mut self, mapping: Translation) -> Result<(), Overlap> {
        let Translation { iova, name, access } = mapping;
        self.by_iova.insert(iova, Target::new(name.raw(), access))?;
        let index = self.by_name.entry(iova.size_class()).or_default();
        index.insert((name, iova.start()));
        Ok(())
    }

    /// Whether a mapping lies only partly in `range`.
    ///
    /// # Errors
    /// The first such mapping.
    pub fn check_whole(&self, range: PageRange<Iova>) -> Result<(), Splits> {
        let ends = [range.start(), range.last()];
        let split = ends.into_iter().find_map(|end| {
            let (mapping, _) = self.by_iova.at(end)?;
            (!range.covers(mapping)).then_some(Splits { mapping })
        });
        split.map_or(Ok(()), Err)
    }

    /// Removes the mappings inside `range` and returns them in order.
    pub(crate) fn take_within(&mut self, range: PageRange<Iova>) -> Vec<Translation> {
        let mut taken = Vec::new();
        self.by_iova.take_within(range, |iova, target| {
            taken.push(translation((iova, target)))
        });
        for mapping in &taken {
            let class = mapping.iova.size_class();
            if let Some(index) = self.by_name.get_mut(&class) {
                index.remove(&(mapping.name, mapping.iova.start()));
                if index.is_empty() {
                    self.by_name.remove(&class);
                }
            }
        }
        taken
    }
}

fn translation((iova, target): (PageRange<Iova>, Target)) -> Translation {
    let (name, access) = target.parts();
    Translation {
        iova,
        name: Ipa::new(name),
        access,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Access;

    fn iovas(start: u64, end: u64) -> PageRange<Iova> {
        PageRange::from_bounds(Iova::new(start << 12), Iova::new(end << 12)).unwrap()
    }

    fn names(start: u64, end: u64) -> PageRange<Ipa> {
        PageRange::from_bounds(Ipa::new(start << 12), Ipa::new(end << 12)).unwrap()
    }

    fn map(mappings: &[(u64, u64, u64)]) -> GuestMap {
        let mut map = GuestMap::default();
        for &(iova, pages, name) in mappings {
            let mapping = Translation {
                iova: iovas(iova, iova + pages),
                name: Ipa::new(name << 12),
                access: Access::Read,
            };
            map.insert(mapping).unwrap();
        }
        map
    }

    #[test]
    fn every_iova_of_a_page_is_found_whatever_the_size_of_its_mapping() {
        let map = map(&[
            (0, 1, 10),
            (1, 7, 4),
            (100, 16, 0),
            (200, 3, 11),
            (300, 1, 9),
        ]);
        let mut found: Vec<_> = map.naming(names(10, 11)).collect();
        found.sort();
        assert_eq!(found, [iovas(0, 1), iovas(7, 8), iovas(110, 111)]);
        assert_eq!(map.naming(names(16, 100)).count(), 0);
    }

    #[test]
    fn a_mapping_is_never_split() {
        let mut map = map(&[(0, 4, 0), (6, 2, 6)]);
        assert!(map.check_whole(iovas(0, 3)).is_err());
        assert!(map.check_whole(iovas(1, 8)).is_err());
        assert!(map.check_whole(iovas(0, 7)).is_err());
        assert!(map.check_whole(iovas(4, 6)).is_ok());
        assert!(map.check_whole(iovas(0, 8)).is_ok());
        assert_eq!(map.take_within(iovas(0, 8)).len(), 2);
        assert_eq!(map.naming(names(0, 8)).count(), 0);
    }
}
