//! Emulated devices in the plan.

use std::num::NonZeroU16;
use std::path::PathBuf;

use super::*;
use crate::config::spec::{DiskAccess, DiskCache, DiskFormat, DiskSpec, FormatSource};

fn disk(name: &str) -> DiskSpec {
    DiskSpec {
        path: PathBuf::from(name),
        format: DiskFormat::Raw,
        format_source: FormatSource::Name,
        access: DiskAccess::ReadWrite,
        serial: None,
        queues: NonZeroU16::MIN,
        cache: DiskCache::Direct,
        backing: None,
    }
}

#[test]
fn a_vm_of_emulated_devices_alone_has_a_bus_with_room_for_their_registers() {
    let facts = host(vec![]);
    for platform in [Platform::None, Platform::EmulatedRealm] {
        let mut spec = vm(platform, GIB, vec![]);
        let bare = check(&spec, &facts);
        assert_eq!(bare.plan().unwrap().pci_windows(), []);
        spec.disks = vec![disk("a"), disk("b")];
        let outcome = check(&spec, &facts);
        let plan = outcome.plan().unwrap();
        assert_sound(plan, GIB);
        let guests = plan.functions().iter().map(|planned| planned.guest);
        let guests: Vec<String> = guests.map(|guest| guest.to_string()).collect();
        assert_eq!(guests, ["00:01.0", "00:02.0"]);
        let windows = plan.pci_windows().iter();
        let memory = windows.filter(|window| window.kind != PciWindowKind::Io);
        let room: u64 = memory.map(|window| window.range.bytes()).sum();
        assert!(room >= 2 * devices::virtio::BAR_BYTES, "{room:#x}");
    }
}

#[test]
fn emulated_devices_stand_behind_the_assigned_ones_and_the_iommu() {
    let facts = host(vec![function(4, Some(40))]);
    let mut spec = vm(Platform::None, GIB, vec![direct(4)]);
    spec.iommu = IommuChoice::Virtio;
    spec.disks = vec![disk("a")];
    let outcome = check(&spec, &facts);
    let plan = outcome.plan().unwrap();
    assert_eq!(plan.devices()[0].guest.to_string(), "00:01.0");
    assert_eq!(plan.iommu().unwrap().guest.to_string(), "00:02.0");
    assert_eq!(plan.functions()[0].guest.to_string(), "00:03.0");
    assert_eq!(plan.functions()[0].device, Emulated::Disk(disk("a")));
}

#[test]
fn a_full_bus_is_an_error_at_the_device_that_has_no_slot() {
    let mut spec = vm(Platform::None, GIB, vec![]);
    spec.disks = (0..249).map(|index| disk(&index.to_string())).collect();
    let outcome = check(&spec, &host(vec![]));
    assert!(outcome.plan().is_none());
    let [finding] = outcome.diagnostics.as_slice() else {
        panic!("{:?}", outcome.diagnostics);
    };
    assert_eq!(finding.code, Code::TooManyDevices);
    assert_eq!(finding.place, Some(Place::Disk(248, None)));
}
