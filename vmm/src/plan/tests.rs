//! The planner from config to plan, on hosts written out in full.

use super::*;
use crate::config::spec::DeviceSpec;
use crate::diagnostic::Code;
use crate::host::facts::{
    AddressRange, Arch, BarFacts, BarKind, DeviceFacts, Hex, KvmFacts, ReservedRegion, SCHEMA,
};

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
        }),
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
    VmSpec {
        platform: Some(Platform::EmulatedRealm),
        vcpus: 1,
        memory,
        dma_rule: None,
        boot: None,
        devices,
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

#[test]
fn a_32_bit_device_gets_ipa_32() {
    let outcome = check(
        &realm(512 * MIB, vec![direct(4)]),
        &host(vec![function(4, Some(32))]),
    );
    let plan = outcome.plan().unwrap();
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
    assert_eq!(plan.dram().len(), 1);
    assert_eq!(plan.devices()[0].highest_dma_address, 0xffff_ffff);

    let outcome = check(&realm(2 * GIB, vec![direct(4)]), &facts);
    assert_eq!(outcome.verdict, Verdict::Rejected);
    assert_eq!(outcome.max_memory, most);
    assert_eq!(codes(&outcome), [Code::DmaWidthTooNarrow]);
}
