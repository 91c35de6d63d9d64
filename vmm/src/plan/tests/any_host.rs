//! What holds of every config on every host.

use proptest::prelude::*;

use super::*;

fn any_bar() -> impl Strategy<Value = BarFacts> {
    let kinds = prop_oneof![
        Just(BarKind::Io),
        Just(BarKind::Mem32),
        Just(BarKind::Mem64),
        Just(BarKind::Mem64Prefetchable),
    ];
    (4..36_u32, kinds).prop_map(|(shift, kind)| {
        let shift = match kind {
            BarKind::Io => 5,
            BarKind::Mem32 => shift.min(28),
            BarKind::Mem64 | BarKind::Mem64Prefetchable => shift,
        };
        bar(1 << shift, kind)
    })
}

prop_compose! {
    fn any_function(slot: u8)(
        bits in prop_oneof![Just(None), (28..=64_u8).prop_map(Some)],
        bars in prop::collection::vec(any_bar(), 0..4),
        aperture in prop_oneof![Just(64_u32), 32..=52_u32],
        // Mostly in the lowest 8 GiB, where they hurt.
        holes in prop::collection::vec((0..0x2_0000_u64, 1..0x4000_u64), 0..3),
    ) -> DeviceFacts {
        let mut device = function(slot, bits);
        device.bars = bars;
        device.iova_ranges = match aperture {
            64 => None,
            bits => Some(vec![range(0, (1 << bits) - 1)]),
        };
        device.reserved_regions.extend(holes.iter().map(|(page, pages)| ReservedRegion {
            start: Hex(page << 16),
            end: Hex(((page + pages) << 16) - 1),
            kind: "reserved".into(),
        }));
        device
    }
}

fn any_case() -> impl Strategy<Value = (VmSpec, HostFacts)> {
    let platforms = prop_oneof![
        Just(Platform::None),
        Just(Platform::EmulatedRealm),
        Just(Platform::Pkvm),
    ];
    let functions = (any_function(1), any_function(2), any_function(3));
    let rules = prop_oneof![Just(None), Just(Some(DmaRule::Strict))];
    (
        platforms,
        rules,
        functions,
        0..4_usize,
        32..=52_u8,
        1..5000_u64,
        1..64_u32,
    )
        .prop_map(
            |(platform, rule, (a, b, c), devices, ipa_bits_max, granules, vcpus)| {
                let mut facts = host(vec![a, b, c]);
                facts.kvm.as_mut().unwrap().ipa_bits_max = Some(ipa_bits_max);
                let mut spec = vm(
                    platform,
                    granules * 2 * MIB,
                    (1..=3).take(devices).map(direct).collect(),
                );
                (spec.dma_rule, spec.vcpus) = (rule, vcpus);
                (spec, facts)
            },
        )
}

/// The addresses that devices use for a page of memory.
fn dma_addresses(plan: &VmPlan, range: &PageRange<Gpa>) -> (u64, u64) {
    let alias = plan.shared_bit().map_or(0, |bit| 1 << bit);
    (range.start().raw() | alias, range.last().raw() | alias)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_plan_obeys_the_rule_and_the_largest_memory_is_exact((mut spec, facts) in any_case()) {
        let outcome = check(&spec, &facts);
        prop_assert_eq!(outcome.plan().is_some(), !outcome.has_errors());
        prop_assert_eq!(outcome.plan().is_some(), spec.memory <= outcome.max_memory);
        let most = outcome.max_memory;
        if let Some(plan) = outcome.plan() {
            assert_sound(plan, spec.memory);
            let strict = spec.dma_rule.is_some() || spec.platform != Some(Platform::None);
            for (device, reach) in plan.devices().iter().zip(&outcome.devices) {
                let bits = reach.width.bits;
                let facts = facts.devices.iter().find(|facts| facts.pci == device.pci).unwrap();
                if strict {
                    prop_assert!(bits == 64 || device.highest_dma_address < 1 << bits);
                    prop_assert!(plan.shared_bit().is_none() || plan.ipa_bits() <= bits);
                }
                for (first, last) in plan.dram().iter().map(|range| dma_addresses(plan, range)) {
                    prop_assert!(last <= device.highest_dma_address);
                    for hole in &facts.reserved_regions {
                        prop_assert!(last < hole.start.0 || hole.end.0 < first);
                    }
                    let ranges = facts.iova_ranges.iter().flatten();
                    prop_assert!(ranges.map(|range| range.end.0).all(|end| last <= end));
                }
            }
        }
        if most > 0 {
            spec.memory = most;
            let outcome = check(&spec, &facts);
            prop_assert!(outcome.plan().is_some(), "{:#?}", outcome.diagnostics);
            assert_sound(outcome.plan().unwrap(), most);
        }
        spec.memory = most + 2 * MIB;
        let outcome = check(&spec, &facts);
        prop_assert!(outcome.plan().is_none());
        prop_assert_eq!(outcome.max_memory, most);
    }

    #[test]
    fn the_order_of_the_hosts_devices_changes_nothing((spec, mut facts) in any_case()) {
        let outcome = check(&spec, &facts);
        facts.devices.reverse();
        prop_assert_eq!(outcome, check(&spec, &facts));
    }
}
