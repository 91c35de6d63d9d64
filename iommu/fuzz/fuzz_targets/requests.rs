//! Any bytes as requests to the guest's IOMMU, among conversions: `cargo +nightly fuzz run requests`.
#![no_main]

use iommu::model::{Faults, ModelMemory, ModelTable};
use iommu::request::{EndpointId, Request};
use iommu::viommu::Viommu;
use iommu::{
    AddressSpace, Alias, Gpa, Iova, PAGE_SIZE, PageRange, Reason, Reserved, SharedBit, Table,
    TableSpec, Visibility,
};
use libfuzzer_sys::fuzz_target;

/// Bytes for each request: the longest but PROBE, whose rest is padding.
const CHUNK: usize = 36;

fuzz_target!(|input: &[u8]| {
    let faults = Faults::none();
    let dram = PageRange::new(Gpa::new(0), 64 * PAGE_SIZE).unwrap();
    let alias = Alias::SharedBit(SharedBit::new(20).unwrap());
    let mut space = AddressSpace::new([dram], Visibility::Shared, alias).unwrap();
    let mut memory = ModelMemory::new(&faults, Visibility::Shared);
    let input_range = PageRange::new(Iova::new(0), 1 << 32).unwrap();
    let mut viommu = Viommu::new(input_range, false);
    for endpoint in 0..3 {
        let window = PageRange::new(Iova::new(0x8000), 0x1000).unwrap();
        let reserved = Reserved::new([(window, Reason::Msi)]);
        let host = ModelTable::new(&faults);
        memory.watch(&host);
        let spec = TableSpec {
            table: if endpoint == 0 { Table::T1 } else { Table::T0 },
            binding: viommu.unattached(),
            reserved: reserved.clone(),
            reach: Iova::new((1 << 32) - 1),
            entry_limit: None,
        };
        let table = space.attach(host, spec).unwrap();
        viommu.add(EndpointId(endpoint), table, reserved).unwrap();
    }
    for bytes in input.chunks(CHUNK) {
        if let [0xfe | 0xff, start, pages, to, ..] = *bytes {
            let to = match to % 2 {
                0 => Visibility::Private,
                _ => Visibility::Shared,
            };
            let start = Gpa::new(u64::from(start) * PAGE_SIZE);
            if let Ok(request) = space.request(start, u64::from(pages) * PAGE_SIZE, to) {
                space.convert(request, &mut memory).unwrap();
            }
        } else if let Ok(request) = Request::parse(bytes, Viommu::features()) {
            let answer = viommu.apply(&mut space, request);
            assert!(answer.quarantined.is_empty());
        }
        space.check().unwrap();
        assert_eq!(memory.violations, 0);
    }
});
