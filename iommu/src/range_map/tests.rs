use super::*;
use crate::addr::Gpa;

fn range(start: u64, end: u64) -> PageRange<Gpa> {
    PageRange::from_bounds(Gpa::new(start << 12), Gpa::new(end << 12)).unwrap()
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
    assert_eq!(map.take_within(range(1, 4)), [(range(2, 4), 1)]);
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
