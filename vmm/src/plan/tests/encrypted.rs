//! Guests whose processor encrypts their memory: one address for a page while a device is not accepted, and
//! another afterwards.

use super::*;

/// An x86-64 host that has both kinds.
fn host_x86(phys_bits: u8, devices: Vec<DeviceFacts>) -> HostFacts {
    let mut facts = host(devices);
    facts.arch = Arch::X86_64;
    for device in &mut facts.devices {
        device.reserved_regions = Vec::new();
        device.iova_ranges = Some(vec![range(0, 0xffff_ffff_ffff)]);
    }
    let kvm = facts.kvm.as_mut().unwrap();
    kvm.ipa_bits_max = None;
    kvm.phys_bits = Some(phys_bits);
    kvm.platforms = vec![Platform::None, Platform::Snp, Platform::Tdx];
    facts
}

#[test]
fn a_td_has_48_bits_whatever_its_host_has_and_memory_in_the_lower_half() {
    for phys_bits in [46, 52] {
        let outcome = check(
            &vm(Platform::Tdx, 64 * GIB, vec![direct(4)]),
            &host_x86(phys_bits, vec![function(4, Some(48))]),
        );
        let plan = outcome.plan().unwrap();
        assert_eq!((plan.ipa_bits(), plan.shared_bit()), (48, None));
        assert_eq!(plan.accepted_shared_bit(), Some(47));
        assert!(
            plan.dram()
                .iter()
                .all(|range| range.end() <= Gpa::new(1 << 47))
        );
        // Not accepted, a device names a page by its own address.
        assert!(plan.devices()[0].highest_dma_address < 1 << 37);
        assert_eq!(codes(&outcome), []);
    }
}

#[test]
fn a_td_takes_52_bits_where_its_memory_does_not_fit_in_half_of_48() {
    let facts = host_x86(52, vec![function(4, Some(64))]);
    let large = vm(Platform::Tdx, 160 << 40, vec![]);
    let outcome = check(&large, &facts);
    let plan = outcome.plan().unwrap();
    assert_eq!(
        (plan.ipa_bits(), plan.accepted_shared_bit()),
        (52, Some(51))
    );
    let outcome = check(&vm(Platform::Tdx, 160 << 40, vec![direct(4)]), &facts);
    // Its IOMMU ends at 48 bits: enough for memory at its own addresses.
    assert_eq!(outcome.plan().unwrap().ipa_bits(), 52);
    assert_eq!(codes(&outcome), [Code::AcceptedDmaTooNarrow]);
}

#[test]
fn a_device_that_is_right_for_a_td_until_it_is_accepted_is_told() {
    let facts = host_x86(52, vec![function(4, Some(40))]);
    let outcome = check(&vm(Platform::Tdx, 64 * GIB, vec![direct(4)]), &facts);
    assert!(
        outcome.plan().is_some(),
        "it reaches all that it is told of"
    );
    assert_eq!(codes(&outcome), [Code::AcceptedDmaTooNarrow]);
    let message = &outcome.diagnostics[0].message;
    assert!(
        message.contains("drives 40 address bits, and needs 48"),
        "{message}"
    );
    assert!(message.contains("bit 47"), "{message}");
}

#[test]
fn an_aperture_that_ends_below_the_shared_bit_is_told() {
    let mut facts = host_x86(52, vec![function(4, Some(64))]);
    facts.devices[0].iova_ranges = Some(vec![range(0, 0x7f_ffff_ffff)]);
    let outcome = check(&vm(Platform::Tdx, 64 * GIB, vec![direct(4)]), &facts);
    assert_eq!(codes(&outcome), [Code::AcceptedDmaTooNarrow]);
    let message = &outcome.diagnostics[0].message;
    assert!(message.contains("ends at 0x8000000000"), "{message}");
}

#[test]
fn no_device_of_an_snp_guest_keeps_its_shared_memory() {
    let facts = host_x86(48, vec![function(4, Some(64)), function(5, Some(37))]);
    let devices = vec![direct(4), direct(5)];
    let outcome = check(&vm(Platform::Snp, 64 * GIB, devices), &facts);
    let plan = outcome.plan().unwrap();
    assert_eq!(
        (plan.shared_bit(), plan.accepted_shared_bit()),
        (None, None)
    );
    assert_eq!(codes(&outcome), [Code::AcceptedDmaUnshared; 2]);
    let wide = &outcome.diagnostics[0].message;
    assert!(!wide.contains("bits"), "{wide}");
    // 64 GiB and the hole below 4 GiB: an alias begins at 128 GiB at the lowest.
    let narrow = &outcome.diagnostics[1].message;
    assert!(narrow.contains("37 of the 38 bits"), "{narrow}");
}

#[test]
fn no_other_width_is_a_tds() {
    let facts = host_x86(52, vec![]);
    let spec = vm(Platform::Tdx, GIB, vec![]);
    let forced = |bits| {
        let options = PlanOptions {
            override_ipa_bits: Some(bits),
        };
        plan(&spec, &facts, options)
    };
    assert_eq!(forced(52).plan().unwrap().ipa_bits(), 52);
    assert!(codes(&forced(50)).contains(&Code::IpaOverrideImpossible));
}

#[test]
fn auto_takes_a_td_only_with_its_firmware() {
    let facts = host_x86(52, vec![]);
    let with = |firmware: Option<&str>, offered: &[Platform]| {
        let mut facts = facts.clone();
        facts.kvm.as_mut().unwrap().platforms = offered.to_vec();
        let mut spec = vm(Platform::None, GIB, vec![]);
        spec.platform = None;
        spec.boot = Some(crate::config::spec::BootSpec {
            kernel: "bzImage".into(),
            initrd: None,
            cmdline: String::new(),
            firmware: firmware.map(Into::into),
        });
        let outcome = check(&spec, &facts);
        (outcome.platform, outcome.notes.join("; "))
    };
    let (platform, notes) = with(None, &[Platform::None, Platform::Tdx]);
    assert_eq!(platform, Platform::None);
    assert!(
        notes.contains("'tdx' was passed over, it needs firmware"),
        "{notes}"
    );
    let tdx = with(Some("td-shim"), &[Platform::None, Platform::Tdx]);
    assert_eq!(tdx.0, Platform::Tdx);
    let snp = with(None, &[Platform::None, Platform::Snp]);
    assert_eq!(snp.0, Platform::Snp);
    let (platform, notes) = with(Some("td-shim"), &[Platform::None, Platform::Snp]);
    assert_eq!(platform, Platform::None);
    assert!(
        notes.contains("boots its kernel without firmware"),
        "{notes}"
    );
}
