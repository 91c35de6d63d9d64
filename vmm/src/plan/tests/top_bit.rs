//! Platforms that name a shared page by the top bit of its address.

use super::*;

#[test]
fn a_32_bit_device_gets_ipa_32() {
    let outcome = check(
        &realm(512 * MIB, vec![direct(4)]),
        &host(vec![function(4, Some(32))]),
    );
    let plan = outcome.plan().unwrap();
    assert_sound(plan, 512 * MIB);
    assert_eq!((plan.ipa_bits(), plan.shared_bit()), (32, Some(31)));
    assert_eq!(plan.devices()[0].highest_dma_address, 0xdfff_ffff);
    assert_eq!(outcome.limited_by, Some(address(4)));
    assert_eq!(outcome.diagnostics, []);
}

#[test]
fn a_32_bit_device_leaves_all_but_one_granule_of_the_lower_half() {
    let facts = host(vec![function(4, None)]);
    let most = 2 * GIB - 2 * MIB;
    let outcome = check(&realm(most, vec![direct(4)]), &facts);
    assert_eq!(outcome.max_memory, most);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, most);
    assert_eq!(plan.dram().len(), 1);
    assert_eq!(plan.devices()[0].highest_dma_address, 0xffff_ffff);

    let outcome = check(&realm(2 * GIB, vec![direct(4)]), &facts);
    assert_eq!(outcome.verdict, Verdict::Rejected);
    assert_eq!(outcome.max_memory, most);
    assert_eq!(codes(&outcome), [Code::DmaWidthTooNarrow]);
    assert_eq!(outcome.ipa_bits, Some(33));
    assert!(!outcome.devices[0].reachable);
}

#[test]
fn a_vm_without_devices_has_the_smallest_space_that_holds_it() {
    for (memory, bits) in [
        (2 * MIB, 32),
        (GIB, 32),
        (2 * GIB - 2 * MIB, 32),
        (2 * GIB, 33),
        (4 * GIB - 2 * MIB, 33),
        (4 * GIB, 34),
        (1 << 40, 42),
    ] {
        let outcome = check(&realm(memory, vec![]), &host(vec![]));
        let plan = outcome.plan().unwrap();
        assert_sound(plan, memory);
        assert_eq!(plan.ipa_bits(), bits, "{memory:#x}");
        assert_eq!(outcome.limited_by, None);
    }
}

#[test]
fn of_two_devices_the_narrower_decides() {
    let facts = host(vec![function(4, Some(40)), function(5, Some(36))]);
    let outcome = check(&realm(20 * GIB, vec![direct(4), direct(5)]), &facts);
    assert_eq!(outcome.plan().unwrap().ipa_bits(), 36);
    assert_eq!(outcome.limited_by, Some(address(5)));

    let outcome = check(&realm(40 * GIB, vec![direct(4), direct(5)]), &facts);
    assert_eq!(codes(&outcome), [Code::DmaWidthTooNarrow]);
    assert_eq!(outcome.diagnostics[0].device, Some(address(5)));
    let reachable: Vec<bool> = outcome.devices.iter().map(|d| d.reachable).collect();
    assert_eq!(reachable, [true, false]);
    let help = outcome.diagnostics[0].help.as_deref().unwrap();
    assert!(help.contains("without it, at most 524286 MiB"), "{help}");
}

#[test]
fn an_aperture_bounds_the_space_whatever_the_device_drives() {
    let mut device = function(4, Some(64));
    device.iova_ranges = Some(vec![range(0, (1 << 39) - 1)]);
    let facts = host(vec![device]);
    let accepted = check(&realm(200 * GIB, vec![direct(4)]), &facts);
    assert_eq!(accepted.plan().unwrap().ipa_bits(), 39);
    assert_eq!(accepted.max_memory, (1 << 38) - 2 * MIB);
    let refused = check(&realm(256 * GIB, vec![direct(4)]), &facts);
    assert_eq!(codes(&refused), [Code::ApertureTooSmall]);
}

#[test]
fn reserved_addresses_in_the_shared_half_are_carved_out_of_memory() {
    let mut device = function(4, Some(32));
    // In the middle of the aliases of 32-bit space, where the compact layout has memory.
    device.iova_ranges = Some(vec![range(0, 0xbfff_ffff), range(0xc010_0000, 0xffff_ffff)]);
    let facts = host(vec![device]);
    let most = 2 * GIB - 2 * MIB;
    let outcome = check(&realm(most, vec![direct(4)]), &facts);
    // The hole costs nothing: the platform's devices stand in it.
    let plan = outcome.plan().unwrap();
    assert_sound(plan, most);
    assert_eq!(plan.dram().len(), 2);
    assert_eq!(plan.board().ecam().start(), Gpa::new(GIB));
}

#[test]
fn a_gpu_with_a_large_bar_has_a_window_above_4_gib() {
    let mut gpu = function(4, Some(40));
    gpu.bars = vec![
        bar(16 * MIB, BarKind::Mem32),
        bar(32 * GIB, BarKind::Mem64Prefetchable),
        bar(32 * MIB, BarKind::Mem64Prefetchable),
        bar(128, BarKind::Io),
    ];
    let outcome = check(&realm(16 * GIB, vec![direct(4)]), &host(vec![gpu]));
    let plan = outcome.plan().unwrap();
    assert_sound(plan, 16 * GIB);
    assert_eq!(plan.ipa_bits(), 38);
    let kinds: Vec<PciWindowKind> = plan.pci_windows().iter().map(|w| w.kind).collect();
    assert_eq!(
        kinds,
        [
            PciWindowKind::Io,
            PciWindowKind::Mem32,
            PciWindowKind::Mem64
        ]
    );
    let (_, start, bytes) = windows(plan)[2];
    assert!(start.is_multiple_of(32 * GIB));
    assert_eq!(bytes, 32 * GIB + 32 * MIB);
}

#[test]
fn small_64_bit_bars_share_the_low_window() {
    let mut device = function(4, Some(32));
    device.bars = vec![bar(16 * MIB, BarKind::Mem64), bar(4096, BarKind::Mem32)];
    let facts = host(vec![device]);
    let outcome = check(&realm(GIB, vec![direct(4)]), &facts);
    let plan = outcome.plan().unwrap();
    assert_eq!(
        windows(plan),
        [(PciWindowKind::Mem32, 256 * MIB, 768 * MIB)]
    );
    // Compact, it is just as large as it must be.
    let outcome = check(&realm(1536 * MIB, vec![direct(4)]), &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, 1536 * MIB);
    assert_eq!(windows(plan)[0].2, 16 * MIB + 4096);
    assert_eq!(outcome.max_memory, 2 * GIB - 20 * MIB);
}

#[test]
fn edu_is_refused_with_its_28_bits_and_accepted_with_36() {
    let mut edu = function(6, Some(32));
    (edu.vendor, edu.device) = (Hex(0x1234), Hex(0x11e8));
    let facts = host(vec![edu]);
    let outcome = check(&realm(512 * MIB, vec![direct(6)]), &facts);
    assert_eq!(codes(&outcome), [Code::DmaWidthBelowMinimum]);
    assert_eq!(outcome.max_memory, 0);
    assert_eq!(outcome.devices[0].width.source, WidthSource::Table);

    let mut wider = direct(6);
    wider.dma_bits = Some(36);
    let memory = 32 * GIB - 2 * MIB;
    let outcome = check(&realm(memory, vec![wider]), &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, memory);
    assert_eq!(plan.ipa_bits(), 36);
    assert_eq!(codes(&outcome), [Code::DmaWidthConflict]);
    assert_eq!(plan.devices()[0].highest_dma_address, 0xf_ffff_ffff);
}

#[test]
fn neither_bouncing_nor_translation_is_for_confidential_vms() {
    let mut device = direct(4);
    device.dma = DmaMode::Translated;
    let mut spec = realm(512 * MIB, vec![device]);
    spec.dma_rule = Some(DmaRule::Bounce);
    let outcome = check(&spec, &host(vec![function(4, Some(64))]));
    assert_eq!(
        codes(&outcome),
        [Code::TranslatedDmaImpossible, Code::BounceImpossible]
    );
    assert_eq!(outcome.max_memory, 0);
}

#[test]
fn an_overridden_width_is_used_and_never_silently() {
    let options = PlanOptions {
        override_ipa_bits: Some(36),
    };
    let facts = host(vec![function(4, Some(32))]);
    let outcome = plan(&realm(512 * MIB, vec![direct(4)]), &facts, options);
    let chosen = outcome.plan().unwrap();
    assert_sound(chosen, 512 * MIB);
    assert_eq!(chosen.ipa_bits(), 36);
    assert_eq!(
        codes(&outcome),
        [Code::IpaOverride, Code::DmaWidthTooNarrow]
    );
    assert!(
        outcome
            .diagnostics
            .iter()
            .all(|f| f.severity == Severity::Warning)
    );
    assert!(!outcome.devices[0].reachable);

    // What does not fit still does not fit.
    let outcome = plan(&realm(32 * GIB, vec![direct(4)]), &facts, options);
    assert_eq!(codes(&outcome), [Code::IpaOverride, Code::MemoryTooLarge]);
    assert_eq!(outcome.max_memory, 32 * GIB - 2 * MIB);

    for bits in [31, 49] {
        let options = PlanOptions {
            override_ipa_bits: Some(bits),
        };
        let outcome = plan(&realm(512 * MIB, vec![]), &facts, options);
        assert_eq!(codes(&outcome), [Code::IpaOverrideImpossible]);
        assert_eq!(outcome.verdict, Verdict::Rejected);
    }
}
