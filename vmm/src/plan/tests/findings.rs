//! What planning reports besides reach: hosts, devices and groups that cannot be.

use super::*;

#[test]
fn every_error_is_reported_at_once() {
    let mut wide = direct(7);
    wide.dma_bits = Some(65);
    let spec = vm(
        Platform::Cca,
        1 << 50,
        vec![direct(4), direct(9), direct(4), wide],
    );
    let facts = host(vec![function(4, Some(32)), function(7, None)]);
    let outcome = check(&spec, &facts);
    let mut found = codes(&outcome);
    found.sort();
    found.dedup();
    assert_eq!(
        found,
        [
            Code::DmaWidthTooNarrow,
            Code::MemoryTooLarge,
            Code::ImpossibleDmaWidth,
            Code::PlatformNotOffered,
            Code::DuplicateDevice,
            Code::DeviceAbsent,
        ]
    );
    assert_eq!(
        message(&outcome, Code::ImpossibleDmaWidth).place,
        Some(Place::Device(3, Some("dma-bits")))
    );
    assert_eq!(
        message(&outcome, Code::DuplicateDevice).place,
        Some(Place::Device(2, Some("pci")))
    );
    assert_eq!(
        message(&outcome, Code::MemoryTooLarge).place,
        Some(Place::Vm("memory"))
    );
    let help = message(&outcome, Code::PlatformNotOffered).help.as_deref();
    assert_eq!(help, Some("the host offers: none, emulated-realm, pkvm"));
}

#[test]
fn auto_picks_the_strongest_platform_that_the_config_allows_and_says_why() {
    let automatic = |devices| VmSpec {
        platform: None,
        ..realm(512 * MIB, devices)
    };
    let mut facts = host(vec![function(4, Some(64))]);
    let picked = |spec: &VmSpec, facts: &HostFacts| {
        let outcome = check(spec, facts);
        assert_eq!(outcome.notes.len(), 1);
        assert!(outcome.plan().is_some(), "{:?}", outcome.diagnostics);
        (outcome.platform, outcome.notes[0].clone())
    };
    let (platform, why) = picked(&automatic(vec![]), &facts);
    assert_eq!(platform, Platform::Pkvm);
    assert!(why.contains("'pkvm' is the strongest"), "{why}");
    let (platform, why) = picked(&automatic(vec![direct(4)]), &facts);
    assert_eq!(platform, Platform::None);
    assert!(
        why.contains("'pkvm' was passed over, it does not keep"),
        "{why}"
    );
    facts.kvm.as_mut().unwrap().platforms.push(Platform::Cca);
    let (platform, why) = picked(&automatic(vec![direct(4)]), &facts);
    assert_eq!(platform, Platform::Cca);
    assert!(why.contains("'cca' is the strongest"), "{why}");
}

#[test]
fn auto_never_picks_an_emulated_platform() {
    let mut spec = realm(512 * MIB, vec![]);
    spec.platform = None;
    let mut facts = host(vec![]);
    facts.kvm.as_mut().unwrap().platforms = vec![Platform::None, Platform::EmulatedRealm];
    let outcome = check(&spec, &facts);
    assert_eq!(outcome.plan().unwrap().platform(), Platform::None);
    assert!(
        outcome.notes[0].contains("no confidential platform"),
        "{:?}",
        outcome.notes
    );
}

#[test]
fn a_platform_for_development_is_taken_when_it_is_asked_for_and_says_what_devices_reach() {
    let mut facts = host(vec![function(4, Some(64))]);
    facts.arch = Arch::X86_64;
    let kvm = facts.kvm.as_mut().unwrap();
    kvm.phys_bits = Some(48);
    kvm.platforms = vec![Platform::None, Platform::SwProtected];
    let spec = |platform, devices| VmSpec {
        platform,
        ..realm(512 * MIB, devices)
    };
    let outcome = check(&spec(None, vec![]), &facts);
    assert_eq!(outcome.plan().unwrap().platform(), Platform::None);
    let wanted = Some(Platform::SwProtected);
    let outcome = check(&spec(wanted, vec![direct(4)]), &facts);
    let plan = outcome.plan().unwrap();
    assert_eq!(
        (plan.platform(), plan.shared_bit()),
        (Platform::SwProtected, None)
    );
    assert!(
        outcome.notes[0].contains("shared pages only"),
        "{:?}",
        outcome.notes
    );
    assert!(
        !codes(&outcome).contains(&Code::PlatformNotLaunched),
        "{:?}",
        outcome.diagnostics
    );
    assert_eq!(check(&spec(wanted, vec![]), &facts).notes, [""; 0]);
}

#[test]
fn a_host_without_kvm_refuses_everything_but_tells_of_devices() {
    let mut facts = host(vec![function(4, Some(40))]);
    facts.kvm = None;
    let outcome = check(&realm(GIB, vec![direct(4)]), &facts);
    assert_eq!(codes(&outcome), [Code::NoKvm]);
    assert_eq!((outcome.max_memory, outcome.limited_by), (0, None));
    assert_eq!(outcome.devices[0].width.bits, 40);

    facts.kvm = host(vec![]).kvm;
    facts.kvm.as_mut().unwrap().ipa_bits_max = None;
    assert_eq!(codes(&check(&realm(GIB, vec![]), &facts)), [Code::NoKvm]);
}

#[test]
fn the_guest_bus_holds_248_functions() {
    let functions = (1..32).flat_map(|slot| (0..8).map(move |f| (slot, f)));
    let all: Vec<PciAddress> = functions
        .map(|(device, function)| PciAddress {
            function,
            ..address(device)
        })
        .chain([PciAddress {
            bus: 1,
            ..address(0)
        }])
        .collect();
    let facts = all.iter().map(|pci| DeviceFacts {
        pci: *pci,
        ..function(1, Some(64))
    });
    let facts = host(facts.collect());
    let specs = all.iter().map(|pci| DeviceSpec {
        pci: *pci,
        ..direct(1)
    });
    let mut specs: Vec<DeviceSpec> = specs.collect();
    let outcome = check(&realm(GIB, specs.clone()), &facts);
    assert_eq!(codes(&outcome), [Code::TooManyDevices]);
    specs.pop();
    let outcome = check(&realm(GIB, specs), &facts);
    let planned = outcome.plan().unwrap().devices();
    assert_eq!(planned.last().unwrap().guest.to_string(), "00:1f.7");
}

#[test]
fn a_group_with_a_device_of_the_host_is_told_of() {
    let mut neighbour = function(5, Some(64));
    (neighbour.group, neighbour.driver) = (Some(4), Some("nvme".into()));
    let mut port = function(6, None);
    (port.group, port.driver) = (Some(4), Some("pcieport".into()));
    let mut loner = function(7, Some(64));
    loner.group = None;
    let facts = host(vec![function(4, Some(64)), neighbour, port, loner]);
    let outcome = check(&realm(GIB, vec![direct(4), direct(7)]), &facts);
    assert_eq!(codes(&outcome), [Code::GroupNotViable, Code::NoIommuGroup]);
    assert!(outcome.plan().is_some());
    assert!(outcome.diagnostics[0].message.contains("0000:00:05.0"));
    // Assigned together, they are no strangers.
    let outcome = check(&realm(GIB, vec![direct(4), direct(5)]), &facts);
    assert_eq!(outcome.diagnostics, []);
}

#[test]
fn a_bridge_is_not_assigned() {
    let mut bridge = function(4, None);
    bridge.class = Hex(0x06_0400);
    let outcome = check(&realm(GIB, vec![direct(4)]), &host(vec![bridge]));
    assert_eq!(codes(&outcome), [Code::DeviceNotAssignable]);
}

#[test]
fn windows_that_fit_nowhere_leave_no_memory() {
    let mut device = function(4, Some(64));
    device.bars = vec![bar(1 << 62, BarKind::Mem64), bar(1 << 31, BarKind::Mem32)];
    let outcome = check(&realm(GIB, vec![direct(4)]), &host(vec![device]));
    assert_eq!(codes(&outcome), [Code::MemoryTooLarge]);
    assert_eq!((outcome.max_memory, outcome.ipa_bits), (0, None));
    assert_eq!(outcome.devices[0].highest_dma_address, None);
}

#[test]
fn sources_rank_and_disagreement_is_told() {
    let mut device = function(4, Some(48));
    device.register_dma_bits = Some(64);
    device.tdisp_dma_bits = Some(44);
    let facts = host(vec![device]);
    let outcome = check(&realm(GIB, vec![direct(4)]), &facts);
    let width = &outcome.devices[0].width;
    assert_eq!((width.bits, width.source), (44, WidthSource::Tdisp));
    assert_eq!(
        width.others,
        [(WidthSource::Register, 64), (WidthSource::Sysfs, 48)]
    );
    let conflict = message(&outcome, Code::DmaWidthConflict);
    assert_eq!(conflict.severity, Severity::Warning);
    assert_eq!(conflict.help, None);

    let mut spec = direct(4);
    spec.dma_bits = Some(52);
    let outcome = check(&realm(GIB, vec![spec]), &facts);
    assert_eq!(outcome.devices[0].width.bits, 52);
    let conflict = message(&outcome, Code::DmaWidthConflict);
    assert!(conflict.help.as_deref().unwrap().contains("dma-bits = 44"));
}

#[test]
fn sysfs_is_believed_only_where_a_driver_spoke() {
    let mut device = function(4, Some(32));
    let width = dma_width(&device);
    assert_eq!((width.bits, width.source), (32, WidthSource::Assumed));
    // ath11k: 36 bits for streaming, 32 for coherent DMA.
    device.dma_mask_bits = Some(36);
    let width = dma_width(&device);
    assert_eq!((width.bits, width.source), (32, WidthSource::Sysfs));
    device.coherent_dma_mask_bits = Some(35);
    assert_eq!(dma_width(&device).bits, 35);
    device.class = Hex(0x01_0802);
    let width = dma_width(&device);
    assert_eq!((width.bits, width.source), (64, WidthSource::Table));
}
