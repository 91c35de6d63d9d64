//! Platforms on which a shared page keeps its address.

use super::*;

#[test]
fn a_plain_vm_bounces_for_a_narrow_device() {
    let facts = host(vec![function(4, Some(32)), function(5, Some(30))]);
    let outcome = check(&vm(Platform::None, 8 * GIB, vec![direct(4)]), &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, 8 * GIB);
    assert_eq!((plan.ipa_bits(), plan.shared_bit()), (34, None));
    assert_eq!(codes(&outcome), [Code::DmaBounces]);
    assert_eq!(outcome.limited_by, None);
    let message = &outcome.diagnostics[0].message;
    assert!(
        message.contains("reaches 3 GiB of guest memory"),
        "{message}"
    );

    // Memory from 1 GiB on would leave 30 bits nothing to bounce through.
    let outcome = check(&vm(Platform::None, 8 * GIB, vec![direct(5)]), &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, 8 * GIB);
    assert!(plan.dram()[0].start() < Gpa::new(GIB));
}

#[test]
fn a_strict_plain_vm_puts_memory_within_reach_and_devices_beyond() {
    let facts = host(vec![function(4, Some(32))]);
    let mut spec = vm(Platform::None, 4 * GIB - 4 * MIB, vec![direct(4)]);
    spec.dma_rule = Some(DmaRule::Strict);
    let outcome = check(&spec, &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, 4 * GIB - 4 * MIB);
    assert!(plan.devices()[0].highest_dma_address <= 0xffff_ffff);
    assert_eq!(outcome.diagnostics, []);

    // The platform's devices may lie beyond 32 bits, but the MSI window and the PCI window may not.
    assert_eq!(outcome.max_memory, 4 * GIB - 2 * MIB);
    spec.memory = 4 * GIB;
    let outcome = check(&spec, &facts);
    assert_eq!(codes(&outcome), [Code::DmaWidthTooNarrow]);
    let help = outcome.diagnostics[0].help.as_deref().unwrap();
    assert!(
        help.contains("dma-rule = \"bounce\"") && help.contains("translated"),
        "{help}"
    );
}

#[test]
fn translated_dma_lifts_the_cap_of_a_device() {
    let facts = host(vec![function(4, Some(32))]);
    let mut device = direct(4);
    device.dma = DmaMode::Translated;
    let mut spec = vm(Platform::None, 64 * GIB, vec![device]);
    spec.dma_rule = Some(DmaRule::Strict);
    let outcome = check(&spec, &facts);
    let plan = outcome.plan().unwrap();
    assert_eq!(plan.devices()[0].highest_dma_address, 0xffff_ffff);
    assert!(outcome.devices[0].reachable);
    assert_eq!(outcome.limited_by, None);
}

#[test]
fn an_aperture_is_hard_even_where_the_guest_bounces() {
    let mut device = function(4, Some(64));
    device.iova_ranges = Some(vec![range(0, 0xffff_ffff)]);
    let facts = host(vec![device]);
    let outcome = check(&vm(Platform::None, 8 * GIB, vec![direct(4)]), &facts);
    assert_eq!(codes(&outcome), [Code::ApertureTooSmall]);
    assert_eq!(outcome.limited_by, Some(address(4)));
    let accepted = check(
        &vm(Platform::None, outcome.max_memory, vec![direct(4)]),
        &facts,
    );
    assert!(accepted.plan().is_some());
}

#[test]
fn memory_is_carved_around_reserved_addresses() {
    let facts = host(vec![function(4, Some(64))]);
    let memory = (1 << 48) - 4 * MIB;
    let outcome = check(&vm(Platform::None, memory, vec![direct(4)]), &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, outcome.max_memory.min(memory));
    let msi = PageRange::new(Gpa::new(0x800_0000), MIB).unwrap();
    assert!(plan.dram().iter().all(|range| !range.overlaps(msi)));
    assert_eq!(plan.dram().len(), 2);
}

#[test]
fn a_direct_relaxable_region_is_no_hole() {
    let mut device = function(4, Some(64));
    device.iova_ranges = None;
    device.reserved_regions[0].kind = "direct-relaxable".into();
    let mut spec = vm(Platform::None, (1 << 48) - 2 * MIB, vec![direct(4)]);
    assert!(check(&spec, &host(vec![device.clone()])).plan().is_some());
    device.reserved_regions[0].kind = "direct".into();
    device.reserved_regions.push(ReservedRegion {
        start: Hex(1 << 40),
        end: Hex((1 << 40) + 0xfff),
        kind: "reserved".into(),
    });
    let outcome = check(&spec, &host(vec![device.clone()]));
    assert_eq!(codes(&outcome), [Code::ReservedRangesTooLarge]);
    let message = &outcome.diagnostics[0].message;
    assert!(message.contains("0x10000000000-0x10000000fff"), "{message}");
    spec.memory = outcome.max_memory;
    assert!(check(&spec, &host(vec![device])).plan().is_some());
}

#[test]
fn pkvm_is_strict_where_its_operator_gives_the_isolation_up() {
    let facts = host(vec![function(4, Some(36))]);
    let given_up = |memory| VmSpec {
        isolation: DmaIsolation::GivenUp,
        ..vm(Platform::Pkvm, memory, vec![direct(4)])
    };
    let outcome = check(&given_up(128 * GIB), &facts);
    assert_eq!(
        codes(&outcome),
        [Code::DmaIsolationGivenUp, Code::DmaWidthTooNarrow]
    );
    let outcome = check(&given_up(outcome.max_memory), &facts);
    assert_eq!(codes(&outcome), [Code::DmaIsolationGivenUp]);
    let plan = outcome.plan().unwrap();
    assert!(plan.devices()[0].highest_dma_address <= 0xf_ffff_ffff);
}

#[test]
fn pkvm_has_no_device_that_could_read_private_memory_unasked() {
    let facts = host(vec![function(4, Some(64))]);
    let refused = check(&vm(Platform::Pkvm, GIB, vec![direct(4)]), &facts);
    assert_eq!(codes(&refused), [Code::DmaNotIsolated]);
    assert!(refused.plan().is_none());
    let help = refused.diagnostics[0].help.as_deref().unwrap();
    assert!(
        help.contains("pkvm-device-dma = \"not-isolated\""),
        "{help}"
    );
    let with_iommu = VmSpec {
        iommu: IommuChoice::Virtio,
        ..vm(Platform::Pkvm, GIB, vec![])
    };
    let refused = check(&with_iommu, &facts);
    assert_eq!(codes(&refused), [Code::EmulatedDmaImpossible]);
    assert!(refused.plan().is_none());
    let alone = check(&vm(Platform::Pkvm, GIB, vec![]), &facts);
    assert_eq!(codes(&alone), [] as [Code; 0]);
    assert_eq!(alone.plan().unwrap().shared_bit(), None);
}

#[test]
fn an_x86_host_keeps_memory_off_its_interrupt_controllers_and_the_hypertransport_hole() {
    let mut device = function(4, Some(64));
    device.reserved_regions = Vec::new();
    device.iova_ranges = Some(vec![
        range(0, 0xfedf_ffff),
        range(0xfef0_0000, 0xfc_ffff_ffff),
        range(0x100_0000_0000, (1 << 48) - 1),
    ]);
    let mut facts = host(vec![device]);
    facts.arch = Arch::X86_64;
    facts.kvm = Some(KvmFacts {
        api: 12,
        ipa_bits_max: None,
        phys_bits: Some(46),
        platforms: vec![Platform::None],
        lacking: Vec::new(),
    });
    let memory = 2 << 40;
    let outcome = check(&vm(Platform::None, memory, vec![direct(4)]), &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, memory);
    assert_eq!(plan.ipa_bits(), 46);
    assert!(matches!(plan.board(), Board::Pc(_)));
    let dram: Vec<(u64, u64)> = plan
        .dram()
        .iter()
        .map(|r| (r.start().raw(), r.end().raw()))
        .collect();
    assert_eq!(
        dram,
        [
            (0, 3 * GIB),
            (4 * GIB, 0xfd_0000_0000),
            (
                0x100_0000_0000,
                0x100_0000_0000 + memory - 3 * GIB - (0xfd_0000_0000 - 4 * GIB)
            ),
        ]
    );
    assert_eq!(codes(&outcome), []);
}

#[test]
fn an_x86_vm_has_as_many_vcpus_as_interrupts_can_name() {
    let mut facts = host(vec![]);
    facts.arch = Arch::X86_64;
    facts.kvm = Some(KvmFacts {
        api: 12,
        ipa_bits_max: None,
        phys_bits: Some(46),
        platforms: vec![Platform::None],
        lacking: Vec::new(),
    });
    let mut spec = vm(Platform::None, GIB, vec![]);
    spec.vcpus = 255;
    assert!(check(&spec, &facts).plan().is_some());
    spec.vcpus = 256;
    let outcome = check(&spec, &facts);
    assert_eq!(codes(&outcome), [Code::TooManyVcpus]);
    assert_eq!(outcome.diagnostics[0].place, Some(Place::Vm("vcpus")));
    facts.arch = Arch::Aarch64;
    facts.kvm.as_mut().unwrap().ipa_bits_max = Some(48);
    assert!(check(&spec, &facts).plan().is_some());
}
