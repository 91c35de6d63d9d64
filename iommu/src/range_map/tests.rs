use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::addr::{Gpa, PAGE_SIZE};

fn range(start: u64, end: u64) -> PageRange<Gpa> {
    PageRange::from_bounds(Gpa::new(start << 12), Gpa::new(end << 12)).unwrap()
}

fn take_within(map: &mut RangeMap<Gpa, u8>, range: PageRange<Gpa>) -> Vec<(PageRange<Gpa>, u8)> {
    let mut taken = Vec::new();
    map.take_within(range, |range, value| taken.push((range, value)));
    taken
}

fn extents(map: &RangeMap<Gpa, u8>) -> Vec<(PageRange<Gpa>, u8)> {
    map.iter().collect()
}

#[test]
fn assigning_the_middle_cuts_and_assigning_it_back_merges() {
    let mut map = RangeMap::default();
    map.assign(range(0, 10), 1);
    map.assign(range(4, 6), 2);
    assert_eq!(
        extents(&map),
        [(range(0, 4), 1), (range(4, 6), 2), (range(6, 10), 1)]
    );
    map.assign(range(4, 6), 1);
    assert_eq!(extents(&map), [(range(0, 10), 1)]);
}

#[test]
fn inserted_extents_keep_their_boundaries_and_refuse_overlap() {
    let mut map = RangeMap::default();
    map.insert(range(0, 2), 1).unwrap();
    map.insert(range(2, 4), 1).unwrap();
    assert_eq!(map.insert(range(3, 5), 1), Err(Overlap));
    assert_eq!(map.insert(range(0, 9), 1), Err(Overlap));
    assert_eq!(take_within(&mut map, range(1, 4)), [(range(2, 4), 1)]);
    assert_eq!(extents(&map), [(range(0, 2), 1)]);
}

#[test]
fn extents_that_only_touch_a_range_are_not_in_it() {
    let mut map = RangeMap::default();
    map.insert(range(0, 2), 1).unwrap();
    map.insert(range(4, 6), 2).unwrap();
    assert_eq!(map.overlapping(range(2, 4)).count(), 0);
    assert_eq!(
        map.within(range(1, 5)).collect::<Vec<_>>(),
        [(range(1, 2), 1), (range(4, 5), 2)]
    );
    assert_eq!(map.at(Gpa::new(0x2000)), None);
    assert_eq!(map.at(Gpa::new(0x5fff)), Some((range(4, 6), 2)));
}

/// The extents of a map kept page by page, neighbours of equal value merged.
fn merged(pages: &BTreeMap<u64, u8>) -> Vec<(PageRange<Gpa>, u8)> {
    let mut extents: Vec<(u64, u64, u8)> = Vec::new();
    for (&page, &value) in pages {
        match extents.last_mut() {
            Some((_, end, last)) if *end == page && *last == value => *end += 1,
            _ => extents.push((page, page + 1, value)),
        }
    }
    extents
        .into_iter()
        .map(|(start, end, value)| (range(start, end), value))
        .collect()
}

proptest! {
    #[test]
    fn assigning_agrees_with_a_map_of_pages(
        assigned in prop::collection::vec((0_u64..200, 1_u64..40, 0_u8..3), 1..200),
    ) {
        let mut map = RangeMap::default();
        let mut pages = BTreeMap::new();
        for (start, length, value) in assigned {
            map.assign(range(start, start + length), value);
            pages.extend((start..start + length).map(|page| (page, value)));
            let merged = merged(&pages);
            prop_assert_eq!(map.len(), merged.len());
            prop_assert_eq!(extents(&map), merged);
        }
        for page in 0..250 {
            let at = map.at(Gpa::new(page * PAGE_SIZE)).map(|(_, value)| value);
            prop_assert_eq!(at, pages.get(&page).copied());
        }
    }

    #[test]
    fn inserting_and_taking_agree_with_a_list(
        steps in prop::collection::vec((0_u64..300, 1_u64..40, any::<bool>()), 1..300),
    ) {
        let mut map = RangeMap::default();
        let mut list: Vec<(PageRange<Gpa>, u8)> = Vec::new();
        for (start, length, insert) in steps {
            let range = if insert { range(start, start + length % 4 + 1) } else {
                range(start, start + length)
            };
            if insert {
                let overlaps = list.iter().any(|(other, _)| other.overlaps(range));
                prop_assert_eq!(map.insert(range, 0).is_err(), overlaps);
                if !overlaps {
                    list.push((range, 0));
                    list.sort();
                }
            } else {
                let inside = |extent: &(PageRange<Gpa>, u8)| range.covers(extent.0);
                let overlapping = |extent: &(PageRange<Gpa>, u8)| range.overlaps(extent.0);
                let expected: Vec<_> = list.iter().copied().filter(overlapping).collect();
                prop_assert_eq!(map.overlapping(range).collect::<Vec<_>>(), expected);
                let expected: Vec<_> = list.iter().copied().filter(inside).collect();
                prop_assert_eq!(take_within(&mut map, range), expected);
                list.retain(|extent| !inside(extent));
            }
            prop_assert_eq!(extents(&map), list.clone());
            prop_assert_eq!(map.len(), list.len());
        }
    }
}
