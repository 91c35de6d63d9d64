use super::*;

/// A host of four processors, from AMD or from Intel, that can do everything.
fn host(vendor: Vendor) -> Cpuid {
    let name = match vendor {
        Vendor::Amd => *b"Auth",
        Vendor::Other => *b"Genu",
    };
    let level = |level: u32| (level << 5) | 1 | 3 << 14 | 7 << 26;
    Cpuid(vec![
        entry(0, 0, [0x1f, u32::from_le_bytes(name), 0, 0]),
        entry(1, 0, [0x6_06a6, 0x0304_0800, VMX, 0]),
        entry(4, 0, [level(1), 5, 6, 7]),
        entry(4, 3, [level(3), 5, 6, 7]),
        entry(4, 4, [0, 0, 0, 0]),
        entry(0xb, 0, [1, 2, 0x100, 3]),
        entry(0x1f, 0, [1, 2, 0x100, 3]),
        entry(0x4000_0000, 0, [0x4000_0001, 1, 2, 3]),
        entry(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        entry(0x8000_0001, 0, [0, 0, NESTED_SVM, 0]),
        entry(0x8000_0008, 0, [0x0030_3930, 7, 0x3003, 0]),
        entry(0x8000_000a, 0, [1, 2, 3, 4]),
        entry(0x8000_001e, 0, [3, 0x103, 1, 0]),
        entry(0x8000_0026, 0, [1, 2, 3, 4]),
    ])
}

fn seen(host: &Cpuid, vcpu: u32, count: u32, function: u32, index: u32) -> [u32; 4] {
    let processors = Processors {
        count,
        physical_bits: 40,
    };
    let leaves = host.of(vcpu, processors);
    let mut found = leaves
        .iter()
        .filter(|leaf| (leaf.function, leaf.index) == (function, index));
    let leaf = found.next().unwrap();
    assert!(found.next().is_none(), "leaf {function:#x} is there twice");
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

#[test]
fn each_processor_has_its_own_id_and_all_have_one_package() {
    let host = host(Vendor::Other);
    for (vcpu, count) in [(0, 1), (2, 3), (5, 6), (253, 254)] {
        let bits = core_bits(count);
        let [_, ebx, ..] = seen(&host, vcpu, count, 1, 0);
        assert_eq!((ebx >> 24, ebx >> 16 & 0xff), (vcpu, (1 << bits).min(255)));
        for function in TOPOLOGY {
            assert_eq!(seen(&host, vcpu, count, function, 0), [0, 1, 0x100, vcpu]);
            let cores = [bits, count, 0x201, vcpu];
            assert_eq!(seen(&host, vcpu, count, function, 1), cores);
            assert_eq!(seen(&host, vcpu, count, function, 2), [0, 0, 2, vcpu]);
        }
    }
}

#[test]
fn the_widths_of_ids_hold_the_count() {
    assert_eq!([1, 2, 3, 4, 5, 254].map(core_bits), [0, 1, 2, 2, 3, 8]);
}

#[test]
fn small_caches_belong_to_a_core_and_large_ones_to_the_package() {
    let host = host(Vendor::Other);
    let sharers = |count, index| seen(&host, 0, count, 4, index)[0] >> 14 & 0xfff;
    assert_eq!((sharers(4, 0), sharers(4, 3)), (0, 3));
    assert_eq!((sharers(1, 0), sharers(1, 3)), (0, 0));
    assert_eq!(seen(&host, 0, 4, 4, 0)[0] >> 26, 3);
    assert_eq!(seen(&host, 0, 4, 4, 4), [0; 4]);
}

#[test]
fn no_guest_is_offered_nested_virtualization() {
    let host = host(Vendor::Amd);
    let [_, _, ecx, _] = seen(&host, 0, 2, 1, 0);
    assert_eq!(ecx, HYPERVISOR | X2APIC | TSC_DEADLINE);
    assert_eq!(seen(&host, 0, 2, 0x8000_0001, 0)[2], CORES_IN_LEAF_8);
    let processors = Processors {
        count: 2,
        physical_bits: 40,
    };
    let leaves = host.of(0, processors);
    assert!(leaf(&leaves, 0x8000_000a).is_none());
    assert!(leaf(&leaves, 0x8000_0026).is_none());
}

#[test]
fn addresses_are_as_wide_as_planned() {
    let [eax, _, ecx, _] = seen(&host(Vendor::Amd), 0, 3, 0x8000_0008, 0);
    assert_eq!((eax, ecx), (0x3928, 0x2002));
    let [eax, _, ecx, _] = seen(&host(Vendor::Other), 0, 3, 0x8000_0008, 0);
    assert_eq!((eax, ecx), (0x3928, 0x3003));
}

#[test]
fn what_kvm_offers_to_its_guests_is_passed_on() {
    let host = host(Vendor::Amd);
    assert_eq!(seen(&host, 1, 2, 0x4000_0001, 0)[0], 0x0100_7efb);
    assert_eq!(seen(&host, 1, 2, 0x8000_001e, 0), [1, 1, 0, 0]);
}

#[test]
fn a_host_without_topology_by_levels_gives_none() {
    let mut old = host(Vendor::Amd);
    old.0[0].eax = 0xa;
    let processors = Processors {
        count: 2,
        physical_bits: 40,
    };
    let leaves = old.of(0, processors);
    assert!(leaves.iter().all(|leaf| !TOPOLOGY.contains(&leaf.function)));
}

#[test]
fn a_guest_that_converts_pages_is_told_how_and_no_other_is() {
    let mut host = host(Vendor::Amd);
    let [before, ..] = seen(&host, 0, 1, 0x4000_0001, 0);
    assert_eq!(before & 1 << 16, 0, "KVM does not offer it by itself");
    offer_conversions(&mut host.0);
    let [features, ..] = seen(&host, 0, 1, 0x4000_0001, 0);
    assert_eq!(features, before | 1 << 16);
    assert_eq!(seen(&host, 0, 1, 0x4000_0000, 0), [0x4000_0001, 1, 2, 3]);
}
