//! How long a plan takes on a host of 256 devices.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use vmm::config::VmSpec;
use vmm::config::spec::{
    DeviceSpec, DmaIsolation, DmaMode, HotplugSpec, IommuChoice, ResourceSpec, VirtioSpec,
};
use vmm::host::HostFacts;
use vmm::host::facts::{
    AddressRange, Arch, BarFacts, BarKind, DeviceFacts, Hex, KvmFacts, PciAddress, ReservedRegion,
    SCHEMA,
};
use vmm::plan::{PlanOptions, plan};
use vmm::platform::Platform;

fn address(index: u16) -> PciAddress {
    let [bus, low] = index.to_be_bytes();
    PciAddress {
        segment: 0,
        bus,
        device: low >> 3,
        function: low & 7,
    }
}

/// A function of 64 bits behind an SMMUv3 whose firmware reserves `holes` ranges of 1 MiB.
fn function(index: u16, holes: u64) -> DeviceFacts {
    let hole = |n| ReservedRegion {
        start: Hex(0x800_0000 + n * 0x1700_0000),
        end: Hex(0x80f_ffff + n * 0x1700_0000),
        kind: "reserved".into(),
    };
    DeviceFacts {
        pci: address(index),
        vendor: Hex(0x8086),
        device: Hex(0x10c9),
        class: Hex(0x02_0000),
        group: Some(index.into()),
        driver: Some("vfio-pci".into()),
        own_node: None,
        dma_mask_bits: Some(64),
        coherent_dma_mask_bits: Some(64),
        register_dma_bits: None,
        tdisp_dma_bits: None,
        bars: vec![
            BarFacts {
                index: 0,
                size: 0x2_0000,
                kind: BarKind::Mem32,
            },
            BarFacts {
                index: 2,
                size: 32 << 20,
                kind: BarKind::Mem64Prefetchable,
            },
        ],
        reserved_regions: (0..holes).map(hole).collect(),
        iova_ranges: Some(vec![AddressRange {
            start: Hex(0),
            end: Hex((1 << 48) - 1),
        }]),
    }
}

fn host(holes: u64) -> HostFacts {
    HostFacts {
        schema: SCHEMA,
        arch: Arch::Aarch64,
        kvm: Some(KvmFacts {
            api: 12,
            ipa_bits_max: Some(48),
            phys_bits: None,
            platforms: vec![Platform::None, Platform::EmulatedRealm],
            lacking: Vec::new(),
        }),
        vfio: None,
        devices: (0..256).map(|index| function(index * 8, holes)).collect(),
        unknown: Vec::new(),
    }
}

/// A Realm, or a plain VM with memory that devices reach in place, with 64 of the functions.
fn vm(platform: Platform, memory: u64) -> VmSpec {
    let device = |index| DeviceSpec {
        pci: address(index * 8),
        dma_bits: None,
        dma: DmaMode::Direct,
    };
    VmSpec {
        platform: Some(platform),
        vcpus: 64,
        memory,
        dma_rule: None,
        iommu: IommuChoice::Auto,
        dma_backend: None,
        isolation: DmaIsolation::default(),
        hotplug: HotplugSpec::default(),
        boot: None,
        devices: (0..64_u16).map(device).collect(),
        resources: ResourceSpec::default(),
        disks: Vec::new(),
        virtio: VirtioSpec::default(),
    }
}

fn benches(criterion: &mut Criterion) {
    let (plain, holed) = (host(1), host(16));
    let realm = vm(Platform::EmulatedRealm, 64 << 30);
    // Just too large for the lower half of 40 bits: compact layouts are tried.
    let full = vm(Platform::EmulatedRealm, (1 << 39) - (2 << 20));
    let refused = vm(Platform::EmulatedRealm, 1 << 48);
    let in_place = vm(Platform::None, 64 << 30);
    let cases = [
        ("256 devices, Realm", &realm, &plain),
        ("256 devices, Realm, compact", &full, &plain),
        ("256 devices, Realm, refused", &refused, &plain),
        ("256 devices, plain VM, 16 holes", &in_place, &holed),
    ];
    for (name, spec, facts) in cases {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| plan(black_box(spec), black_box(facts), PlanOptions::default()));
        });
    }
}

criterion_group!(plans, benches);
criterion_main!(plans);
