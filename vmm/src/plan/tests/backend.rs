//! What makes DMA tables, and whether they are big enough.

use super::*;
use crate::host::facts::VfioFacts;

const LIMIT: u64 = 65535;

/// A host with one device that VFIO has.
fn vfio_host(iommufd: bool, own_node: Option<bool>) -> HostFacts {
    let mut device = function(4, Some(64));
    device.own_node = own_node;
    HostFacts {
        vfio: Some(VfioFacts {
            type1: true,
            iommufd,
            dma_entry_limit: Some(LIMIT),
        }),
        ..host(vec![device])
    }
}

fn backend(spec: &VmSpec, facts: &HostFacts) -> Option<BackendKind> {
    Some(check(spec, facts).plan()?.dma_backend())
}

#[test]
fn iommufd_is_taken_where_the_host_has_it_for_the_device() {
    let spec = realm(256 * MIB, vec![direct(4)]);
    for (iommufd, own_node, expected) in [
        (true, Some(true), BackendKind::Iommufd),
        (true, None, BackendKind::Iommufd),
        (true, Some(false), BackendKind::Type1),
        (false, Some(true), BackendKind::Type1),
    ] {
        let facts = vfio_host(iommufd, own_node);
        assert_eq!(backend(&spec, &facts), Some(expected), "{facts:?}");
    }
    let unknown = host(vec![function(4, Some(64))]);
    assert_eq!(backend(&spec, &unknown), Some(BackendKind::Type1));
}

#[test]
fn what_the_config_says_is_taken_or_refused() {
    let mut spec = realm(256 * MIB, vec![direct(4)]);
    spec.dma_backend = Some(BackendKind::Type1);
    let facts = vfio_host(true, Some(true));
    assert_eq!(backend(&spec, &facts), Some(BackendKind::Type1));
    spec.dma_backend = Some(BackendKind::Iommufd);
    assert_eq!(backend(&spec, &facts), Some(BackendKind::Iommufd));
    for (iommufd, missing) in [
        (false, "the host has no /dev/iommu"),
        (true, "0000:00:04.0 has no node in /dev/vfio/devices"),
    ] {
        let outcome = check(&spec, &vfio_host(iommufd, Some(false)));
        let refusal = message(&outcome, Code::IommufdMissing);
        assert!(refusal.message.starts_with(missing), "{refusal}");
        assert_eq!(refusal.place, Some(Place::Vm("dma-backend")));
        assert!(outcome.plan().is_none());
    }
}

#[test]
fn a_guest_that_can_use_up_the_mappings_of_type1_is_warned_of_with_the_number() {
    let type1 = vfio_host(false, None);
    let warned = |spec: &VmSpec, facts: &HostFacts| codes(&check(spec, facts));
    let realm = |memory| realm(memory, vec![direct(4)]);
    let outcome = check(&realm(512 * MIB), &type1);
    let warning = message(&outcome, Code::DmaEntriesMayRunOut);
    assert!(
        warning.message.contains(" 131072 DMA mappings"),
        "{warning}"
    );
    assert!(warning.message.contains(" 65535:"), "{warning}");
    assert!(outcome.plan().is_some());
    assert_eq!(warned(&realm(254 * MIB), &type1), []);
    assert_eq!(warned(&realm(512 * MIB), &vfio_host(true, None)), []);
    let plain = vm(Platform::None, 512 * MIB, vec![direct(4)]);
    assert_eq!(warned(&plain, &type1), []);
    let without_devices = super::realm(512 * MIB, vec![]);
    assert_eq!(warned(&without_devices, &type1), []);
    let mut translated = plain;
    translated.iommu = IommuChoice::Virtio;
    assert_eq!(warned(&translated, &type1), [Code::DmaEntriesMayRunOut]);
}
