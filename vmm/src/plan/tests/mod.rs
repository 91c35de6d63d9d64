//! The planner from config to plan, on hosts written out in full.

mod any_host;
mod backend;
mod emulated;
mod encrypted;
mod findings;
mod hotplug;
mod in_place;
mod top_bit;
mod virtual_iommu;

use iommu::{Gpa, PageRange};

use vfio::BackendKind;

use super::*;
use crate::config::spec::{
    DeviceSpec, DmaIsolation, DmaRule, HotplugSpec, IommuChoice, ResourceSpec, VirtioSpec,
};
use crate::diagnostic::{Code, Place};
use crate::host::facts::{
    AddressRange, Arch, BarFacts, BarKind, DeviceFacts, Hex, KvmFacts, ReservedRegion, SCHEMA,
};
use crate::platform::Platform;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn host(devices: Vec<DeviceFacts>) -> HostFacts {
    HostFacts {
        schema: SCHEMA,
        arch: Arch::Aarch64,
        kvm: Some(KvmFacts {
            api: 12,
            ipa_bits_max: Some(48),
            phys_bits: None,
            platforms: vec![Platform::None, Platform::EmulatedRealm, Platform::Pkvm],
            lacking: Vec::new(),
        }),
        vfio: None,
        devices,
        unknown: Vec::new(),
    }
}

/// A function of an Arm host behind an SMMUv3, with one small 32-bit BAR.
fn function(slot: u8, bits: Option<u8>) -> DeviceFacts {
    DeviceFacts {
        pci: address(slot),
        vendor: Hex(0x1af4),
        device: Hex(0x1000),
        class: Hex(0x02_0000),
        group: Some(slot.into()),
        driver: Some("vfio-pci".into()),
        own_node: None,
        dma_mask_bits: bits,
        coherent_dma_mask_bits: bits,
        register_dma_bits: None,
        tdisp_dma_bits: None,
        bars: vec![BarFacts {
            index: 0,
            size: 0x2_0000,
            kind: BarKind::Mem32,
        }],
        reserved_regions: vec![ReservedRegion {
            start: Hex(0x800_0000),
            end: Hex(0x80f_ffff),
            kind: "msi".into(),
        }],
        iova_ranges: Some(vec![
            range(0, 0x7ff_ffff),
            range(0x810_0000, 0xffff_ffff_ffff),
        ]),
    }
}

fn range(start: u64, end: u64) -> AddressRange {
    AddressRange {
        start: Hex(start),
        end: Hex(end),
    }
}

fn address(slot: u8) -> PciAddress {
    PciAddress {
        segment: 0,
        bus: 0,
        device: slot,
        function: 0,
    }
}

fn direct(slot: u8) -> DeviceSpec {
    DeviceSpec {
        pci: address(slot),
        dma_bits: None,
        dma: DmaMode::Direct,
    }
}

fn realm(memory: u64, devices: Vec<DeviceSpec>) -> VmSpec {
    vm(Platform::EmulatedRealm, memory, devices)
}

fn vm(platform: Platform, memory: u64, devices: Vec<DeviceSpec>) -> VmSpec {
    VmSpec {
        platform: Some(platform),
        vcpus: 1,
        memory,
        dma_rule: None,
        iommu: IommuChoice::Auto,
        dma_backend: None,
        isolation: DmaIsolation::default(),
        hotplug: HotplugSpec::default(),
        boot: None,
        devices,
        resources: ResourceSpec::default(),
        disks: Vec::new(),
        virtio: VirtioSpec::default(),
    }
}

fn check(spec: &VmSpec, facts: &HostFacts) -> Outcome {
    plan(spec, facts, PlanOptions::default())
}

fn codes(outcome: &Outcome) -> Vec<Code> {
    outcome
        .diagnostics
        .iter()
        .map(|finding| finding.code)
        .collect()
}

fn message(outcome: &Outcome, code: Code) -> &Diagnostic {
    let found = outcome
        .diagnostics
        .iter()
        .find(|finding| finding.code == code);
    found.unwrap_or_else(|| panic!("no {code} in {:#?}", outcome.diagnostics))
}

fn bar(size: u64, kind: BarKind) -> BarFacts {
    BarFacts {
        index: 0,
        size,
        kind,
    }
}

fn windows(plan: &VmPlan) -> Vec<(PciWindowKind, u64, u64)> {
    let windows = plan.pci_windows().iter();
    windows
        .map(|window| {
            (
                window.kind,
                window.range.start().raw(),
                window.range.bytes(),
            )
        })
        .collect()
}

/// What every plan promises, whatever the rule did: ranges in the space, apart, in whole units.
fn assert_sound(plan: &VmPlan, memory: u64) {
    let end = match plan.shared_bit() {
        Some(bit) => 1 << bit,
        None => 1_u64 << plan.ipa_bits(),
    };
    let mut ranges: Vec<PageRange<Gpa>> = plan.dram().to_vec();
    assert!(ranges.is_sorted());
    for range in &ranges {
        assert!(
            range.start().raw().is_multiple_of(2 * MIB) && range.bytes().is_multiple_of(2 * MIB)
        );
    }
    assert_eq!(
        ranges.iter().map(|range| range.bytes()).sum::<u64>(),
        memory
    );
    let ecam = plan.board().ecam();
    assert!(ecam.start().raw().is_multiple_of(MIB));
    ranges.push(ecam);
    if let Board::Arm(mmio) = plan.board() {
        for gic in [mmio.gic_distributor, mmio.gic_its, mmio.gic_redistributors] {
            assert!(gic.start().raw().is_multiple_of(0x1_0000));
        }
        assert_eq!(
            mmio.gic_redistributors.bytes(),
            0x2_0000 * u64::from(plan.vcpus())
        );
        ranges.extend([
            mmio.gic_distributor,
            mmio.gic_its,
            mmio.gic_redistributors,
            mmio.serial,
            mmio.rtc,
            mmio.gpio,
        ]);
    }
    for window in plan.pci_windows() {
        let below = window.range.end().raw() <= 4 * GIB;
        match window.kind {
            PciWindowKind::Mem32 => assert!(below && window.range.start().raw() > 0),
            PciWindowKind::Mem64 => assert!(window.range.start().raw() >= 4 * GIB),
            PciWindowKind::Io => assert_eq!(window.range.bytes(), 0x1_0000),
        }
        ranges.push(window.range);
    }
    ranges.sort();
    assert!(
        ranges.windows(2).all(|pair| !pair[0].overlaps(pair[1])),
        "{ranges:?}"
    );
    assert!(
        ranges.iter().all(|range| range.end().raw() <= end),
        "{ranges:?}"
    );
}
