//! Slots in the plan, and devices that come later.

use super::*;
use crate::host::facts::VfioFacts;

fn with_ports(mut spec: VmSpec, ports: u8, window: u64) -> VmSpec {
    spec.hotplug = HotplugSpec { ports, window };
    spec
}

fn admit(
    plan: &VmPlan,
    device: &DeviceSpec,
    facts: &HostFacts,
) -> Result<Admitted, Vec<Diagnostic>> {
    plan.admit(device, &plan.ports()[0], facts)
}

fn reasons(plan: &VmPlan, device: &DeviceSpec, facts: &HostFacts) -> Vec<Code> {
    let refused = admit(plan, device, facts).unwrap_err();
    let errors = refused.iter();
    let errors = errors.filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| finding.code).collect()
}

#[test]
fn slots_come_behind_all_devices_with_buses_and_windows_of_their_own() {
    let facts = host(vec![function(4, Some(40))]);
    let spec = with_ports(vm(Platform::None, GIB, vec![direct(4)]), 4, 64 * MIB);
    let outcome = check(&spec, &facts);
    let plan = outcome.plan().unwrap();
    assert_sound(plan, GIB);
    let ports: Vec<_> = plan
        .ports()
        .iter()
        .map(|port| (port.number, port.guest.to_string(), port.card.to_string()))
        .collect();
    let expected = [
        (1, "00:02.0", "01:00.0"),
        (2, "00:03.0", "02:00.0"),
        (3, "00:04.0", "03:00.0"),
        (4, "00:05.0", "04:00.0"),
    ];
    let expected = expected.map(|(number, port, card)| (number, port.into(), card.into()));
    assert_eq!(ports, expected);
    // Five buses, of which configuration space holds a power of two.
    let ecam = plan.board().ecam();
    assert_eq!(ecam.bytes(), 8 * MIB);
    assert!(ecam.start().raw().is_multiple_of(8 * MIB));
    assert_eq!(last_bus(ecam), 7);
    let windows = windows(plan);
    let low = windows
        .iter()
        .find(|window| window.0 == PciWindowKind::Mem32);
    assert!(low.unwrap().2 >= 4 * 64 * MIB, "{windows:?}");
    assert!(outcome.notes.iter().any(|note| note.starts_with("4 slots")));
}

#[test]
fn a_vm_of_slots_alone_has_a_bus_in_every_layout() {
    for arch in [Arch::Aarch64, Arch::X86_64] {
        let mut facts = host(vec![]);
        facts.arch = arch;
        if let Some(kvm) = &mut facts.kvm {
            kvm.phys_bits = Some(40);
        }
        let spec = with_ports(vm(Platform::None, 2 * GIB, vec![]), 15, 2 * MIB);
        let outcome = check(&spec, &facts);
        let plan = outcome.plan().unwrap();
        assert_sound(plan, 2 * GIB);
        assert_eq!(plan.ports().len(), 15);
        assert!(!plan.pci_windows().is_empty());
    }
}

#[test]
fn no_slots_are_beside_a_virtual_iommu_or_where_nobody_has_tried() {
    let facts = host(vec![function(4, Some(40))]);
    let mut beside = with_ports(vm(Platform::None, GIB, vec![direct(4)]), 1, 2 * MIB);
    beside.iommu = IommuChoice::Virtio;
    let protected = with_ports(vm(Platform::Pkvm, GIB, vec![]), 1, 2 * MIB);
    for spec in [beside, protected] {
        let outcome = check(&spec, &facts);
        assert!(outcome.plan().is_none());
        let finding = message(&outcome, Code::NoSlots);
        assert_eq!(finding.place, Some(Place::Vm("hotplug-ports")));
    }
}

#[test]
fn a_device_that_reaches_the_vm_as_it_is_comes_into_the_slot() {
    let without = host(vec![]);
    let spec = with_ports(realm(512 * MIB, vec![]), 2, 2 * MIB);
    let plan = check(&spec, &without).plan().unwrap().clone();
    assert_eq!(plan.ipa_bits(), 32);
    let facts = host(vec![function(4, Some(32))]);
    let port: PlannedPort = plan.ports()[1];
    let admitted = plan.admit(&direct(4), &port, &facts).unwrap();
    assert_eq!(admitted.device.guest, port.card);
    assert_eq!(admitted.device.dma_bits, 32);
    assert_eq!(admitted.device.highest_dma_address, 0xdfff_ffff);
    assert_eq!(admitted.warnings, []);
    // The same as if it had been there from the start.
    let mut cold = spec;
    cold.devices = vec![direct(4)];
    let cold = check(&cold, &facts);
    let cold = &cold.plan().unwrap().devices()[0];
    assert_eq!(
        cold.highest_dma_address,
        admitted.device.highest_dma_address
    );
}

#[test]
fn a_device_too_narrow_for_the_vm_is_refused_with_the_planners_reason() {
    let spec = with_ports(realm(2 * GIB, vec![]), 1, 2 * MIB);
    let facts = host(vec![function(4, Some(28)), function(5, Some(32))]);
    let plan = check(&spec, &facts).plan().unwrap().clone();
    assert_eq!(plan.ipa_bits(), 33);
    for (slot, code) in [
        (4, Code::DmaWidthBelowMinimum),
        (5, Code::DmaWidthTooNarrow),
    ] {
        let refused = admit(&plan, &direct(slot), &facts).unwrap_err();
        assert_eq!(refused[0].code, code);
        let mut cold = spec.clone();
        cold.devices = vec![direct(slot)];
        let outcome = check(&cold, &facts);
        assert_eq!(message(&outcome, code).message, refused[0].message);
        assert_eq!(refused[0].place, None);
    }
    // The operator's word counts here, too.
    let told = DeviceSpec {
        dma_bits: Some(40),
        ..direct(5)
    };
    assert!(admit(&plan, &told, &facts).is_ok());
}

#[test]
fn a_device_whose_iommu_falls_short_of_the_vm_is_refused() {
    let spec = with_ports(vm(Platform::None, 8 * GIB, vec![]), 1, 2 * MIB);
    let plan = check(&spec, &host(vec![])).plan().unwrap().clone();
    let mut short = function(4, Some(64));
    short.iova_ranges = Some(vec![range(0, 0x7ff_ffff), range(0x810_0000, 0xffff_ffff)]);
    let mut holed = function(5, Some(64));
    holed.reserved_regions.push(ReservedRegion {
        start: Hex(0x8000_0000),
        end: Hex(0x8000_0fff),
        kind: "reserved".into(),
    });
    let facts = host(vec![short, holed]);
    assert_eq!(reasons(&plan, &direct(4), &facts), [Code::ApertureTooSmall]);
    assert_eq!(
        reasons(&plan, &direct(5), &facts),
        [Code::ReservedRangesTooLarge]
    );
}

#[test]
fn a_narrow_device_of_a_plain_vm_comes_with_a_warning_or_not_at_all() {
    let facts = host(vec![function(4, Some(32))]);
    let mut spec = with_ports(vm(Platform::None, 8 * GIB, vec![]), 1, 2 * MIB);
    let plan = check(&spec, &facts).plan().unwrap().clone();
    let admitted = admit(&plan, &direct(4), &facts).unwrap();
    let warned: Vec<Code> = admitted.warnings.iter().map(|it| it.code).collect();
    assert_eq!(warned, [Code::DmaBounces]);
    spec.dma_rule = Some(DmaRule::Strict);
    let plan = check(&spec, &facts).plan().unwrap().clone();
    assert_eq!(
        reasons(&plan, &direct(4), &facts),
        [Code::DmaWidthTooNarrow]
    );
}

#[test]
fn a_device_that_is_absent_a_bridge_or_too_large_does_not_come() {
    let mut bridge = function(4, Some(64));
    bridge.class = Hex(0x06_0400);
    let mut large = function(5, Some(64));
    large.bars = vec![bar(4 * MIB, BarKind::Mem64)];
    let facts = host(vec![bridge, large]);
    let spec = with_ports(vm(Platform::None, GIB, vec![]), 1, 6 * MIB);
    let plan = check(&spec, &facts).plan().unwrap().clone();
    let reasons = |slot| reasons(&plan, &direct(slot), &facts);
    assert_eq!(reasons(4), [Code::DeviceNotAssignable]);
    assert_eq!(reasons(5), [Code::SlotTooSmall]);
    assert_eq!(reasons(6), [Code::DeviceAbsent]);
    let help = admit(&plan, &direct(5), &facts).unwrap_err();
    let help = help[0].help.as_deref().unwrap();
    assert!(help.contains("hotplug-window = \"8 MiB\""), "{help}");
}

#[test]
fn a_late_device_has_the_backend_that_it_can_have() {
    let mut facts = host(vec![]);
    facts.vfio = Some(VfioFacts {
        type1: true,
        iommufd: true,
        dma_entry_limit: Some(65535),
    });
    let spec = with_ports(vm(Platform::None, GIB, vec![]), 1, 2 * MIB);
    let plan = check(&spec, &facts).plan().unwrap().clone();
    for (own_node, kind) in [
        (Some(true), BackendKind::Iommufd),
        (Some(false), BackendKind::Type1),
    ] {
        let mut device = function(4, Some(64));
        device.own_node = own_node;
        facts.devices = vec![device];
        assert_eq!(admit(&plan, &direct(4), &facts).unwrap().backend, kind);
    }
}
