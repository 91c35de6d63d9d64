//! The packing against a model that tries every place of every block.

use proptest::prelude::*;

use super::*;

/// A space of at most 64 addresses, so that a set of them is one word.
pub(in crate::plan) const LARGEST: u64 = 64;
pub(in crate::plan) const GRANULE: u64 = 4;

#[derive(Debug, Clone)]
struct Case {
    end: u64,
    usable: Spans,
    fixed: Vec<Span>,
    blocks: Vec<Block>,
}

pub(in crate::plan) fn bits(start: u64, bytes: u64) -> u64 {
    let ones = |count: u64| {
        if count >= 64 {
            u64::MAX
        } else {
            (1 << count) - 1
        }
    };
    ones(start + bytes) & !ones(start)
}

fn set(spans: &[Span]) -> u64 {
    spans
        .iter()
        .fold(0, |set, span| set | bits(span.start, span.bytes()))
}

/// The granules that hold any of these addresses.
fn granules(addresses: u64) -> u64 {
    let granule = |at| bits(at, GRANULE);
    let all = (0..LARGEST).step_by(4).map(granule);
    all.filter(|granule| granule & addresses != 0)
        .fold(0, |set, granule| set | granule)
}

/// The most DRAM out of `usable` that any placement of `blocks` below `end`, clear of `taken`,
/// leaves.
pub(in crate::plan) fn most(blocks: &[Block], end: u64, usable: u64, taken: u64) -> Option<u32> {
    let Some((block, rest)) = blocks.split_first() else {
        return Some((usable & !granules(taken)).count_ones());
    };
    let places = (0..end).step_by(usize::try_from(block.align).unwrap());
    places
        .filter(|start| *start >= block.lowest && start + block.size <= block.end.min(end))
        .map(|start| bits(start, block.size))
        .filter(|place| place & taken == 0)
        .filter_map(|place| most(rest, end, usable, taken | place))
        .max()
}

fn block() -> impl Strategy<Value = Block> {
    let lowest = prop_oneof![3 => Just(0), 3 => Just(1_u64), 1 => Just(32)];
    let end = prop_oneof![3 => Just(LARGEST), 1 => Just(32_u64)];
    (1..20_u64, 0..5_u32, lowest, end).prop_map(|(size, shift, lowest, end)| Block {
        size,
        align: 1 << shift,
        lowest,
        end,
    })
}

prop_compose! {
    fn any_case()(
        granules in 1..=LARGEST / GRANULE,
        holes in prop::collection::vec((0..16_u64, 1..5_u64), 0..4),
        fixed in prop::option::weighted(0.2, 0..16_u64),
        blocks in prop::collection::vec(block(), 0..=3),
    ) -> Case {
        let end = granules * GRANULE;
        let fixed: Vec<Span> = fixed
            .and_then(|at| Span::new(at * GRANULE, ((at + 1) * GRANULE).min(end)))
            .into_iter()
            .collect();
        let all = Spans::union(Span::new(0, end));
        let holes = holes.iter().filter_map(|(at, n)| Span::new(at * GRANULE, (at + n) * GRANULE));
        let usable = holes.chain(fixed.clone()).fold(all, |rest, hole| rest.without(hole));
        Case { end, usable, fixed, blocks }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_placement_leaves_more_than_the_packing(case in any_case()) {
        let space = Space {
            granule: GRANULE,
            end: case.end,
            usable: &case.usable,
            fixed: &case.fixed,
        };
        let packing = pack(&space, &case.blocks);
        let usable = set(case.usable.as_slice());
        let best = most(&case.blocks, case.end, usable, set(&case.fixed));
        prop_assert_eq!(packing.as_ref().map(|p| p.free.bytes()), best.map(u64::from));
        let Some(packing) = packing else { return Ok(()) };
        let mut taken = set(&case.fixed);
        for (block, start) in case.blocks.iter().zip(&packing.starts) {
            let place = bits(*start, block.size);
            prop_assert!(start.is_multiple_of(block.align) && *start >= block.lowest);
            prop_assert!(start + block.size <= block.end.min(case.end));
            prop_assert_eq!(place & taken, 0);
            taken |= place;
        }
        prop_assert_eq!(set(packing.free.as_slice()) & taken, 0);
        prop_assert_eq!(set(packing.free.as_slice()) & !set(case.usable.as_slice()), 0);
    }
}

#[test]
fn a_block_under_a_ceiling_uses_the_hole_below_it() {
    let usable = Spans::union(Span::new(0, 20));
    let space = Space {
        granule: GRANULE,
        end: 36,
        usable: &usable,
        fixed: &[],
    };
    let block = Block {
        size: 13,
        align: 1,
        lowest: 0,
        end: 32,
    };
    assert_eq!(pack(&space, &[block]).unwrap().free.bytes(), 16);
}

#[test]
fn blocks_use_a_hole_that_memory_cannot() {
    let usable = Spans::union([Span::new(0, 16).unwrap(), Span::new(24, 64).unwrap()]);
    let space = Space {
        granule: GRANULE,
        end: 64,
        usable: &usable,
        fixed: &[],
    };
    let block = |size| Block {
        size,
        align: 1,
        lowest: 0,
        end: 64,
    };
    let packing = pack(&space, &[block(6), block(2)]).unwrap();
    assert_eq!(packing.starts, [16, 22]);
    assert_eq!(packing.free, usable);
}
