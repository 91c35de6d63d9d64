//! The guest's IOMMU in the plan.

use iommu::Iova;

use super::*;

fn translated(slot: u8) -> DeviceSpec {
    DeviceSpec {
        dma: DmaMode::Translated,
        ..direct(slot)
    }
}

#[test]
fn a_translated_device_brings_an_iommu_that_stands_behind_the_devices() {
    let facts = host(vec![function(4, Some(32)), function(5, Some(64))]);
    let spec = vm(Platform::None, 8 * GIB, vec![translated(4), direct(5)]);
    let outcome = check(&spec, &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, 8 * GIB);
    let iommu = plan.iommu().unwrap();
    assert_eq!(iommu.guest.to_string(), "00:03.0");
    assert_eq!(iommu.input.start(), Iova::new(0));
    assert_eq!(iommu.input.last(), Iova::new(0xffff_ffff), "the narrowest");
    assert_eq!(iommu.unattached, Unattached::Bypass);
    assert_eq!(outcome.diagnostics, []);
}

#[test]
fn an_iommu_can_be_asked_for_and_left_out() {
    let facts = host(vec![function(4, Some(40))]);
    let mut spec = vm(Platform::None, GIB, vec![direct(4)]);
    assert!(check(&spec, &facts).plan().unwrap().iommu().is_none());
    spec.iommu = IommuChoice::Virtio;
    let outcome = check(&spec, &facts);
    let iommu = *outcome.plan().unwrap().iommu().unwrap();
    assert_eq!(iommu.input.last(), Iova::new((1 << 40) - 1));

    spec.devices = vec![];
    let outcome = check(&spec, &facts);
    let plan = outcome.plan().unwrap();
    assert_eq!(plan.iommu().unwrap().guest.to_string(), "00:01.0");
    assert_eq!(plan.pci_windows().len(), 1, "room for its registers");

    spec.devices = vec![translated(4)];
    spec.iommu = IommuChoice::None;
    let outcome = check(&spec, &facts);
    assert_eq!(codes(&outcome), [Code::VirtualIommuAbsent]);
    let place = outcome.diagnostics[0].place;
    assert_eq!(place, Some(Place::Device(0, Some("dma"))));
}

#[test]
fn the_aperture_bounds_what_is_translated_and_what_is_reached_without() {
    let mut narrow = function(4, Some(64));
    narrow.iova_ranges = Some(vec![range(0, 0xffff_ffff)]);
    let facts = host(vec![narrow]);
    let spec = vm(Platform::None, 8 * GIB, vec![translated(4)]);
    let outcome = check(&spec, &facts);
    let iommu = *outcome.plan().unwrap().iommu().unwrap();
    assert_eq!(iommu.input.last(), Iova::new(0xffff_ffff));
    assert_eq!(iommu.unattached, Unattached::Blocked, "8 GiB do not fit");
    assert_eq!(outcome.devices[0].highest_dma_address, Some(0xffff_ffff));
}

#[test]
fn the_shared_half_of_a_realm_can_be_translated() {
    let facts = host(vec![function(4, Some(34)), function(5, Some(64))]);
    let mut spec = realm(4 * GIB, vec![direct(4), direct(5)]);
    spec.iommu = IommuChoice::Virtio;
    let outcome = check(&spec, &facts);
    let plan = outcome.plan().unwrap();
    let iommu = plan.iommu().unwrap();
    assert_eq!(iommu.input.last(), Iova::new((1 << 34) - 1));
    assert!(iommu.input.end().raw() >= 1 << plan.ipa_bits());
    assert_eq!(iommu.unattached, Unattached::Bypass);
}
