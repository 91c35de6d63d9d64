use super::*;
use crate::addr::Gpa;
use crate::alias::{Alias, SharedBit};
use crate::conversion::PageFlip;
use crate::mapping::Access;
use crate::model::{Fault, Faults, ModelMemory, ModelTable};
use crate::page_state::Visibility;
use crate::table::TableSpec;
use crate::view::Table;

const E0: EndpointId = EndpointId(8);
const E1: EndpointId = EndpointId(16);

fn window() -> PageRange<Iova> {
    PageRange::new(Iova::new(0x8000), 0x1000).unwrap()
}

struct Rig {
    faults: Faults,
    space: AddressSpace<ModelTable>,
    viommu: Viommu,
    hosts: [ModelTable; 2],
}

impl Rig {
    fn new(initial: Visibility, alias: Alias, bypass: bool) -> Self {
        let faults = Faults::none();
        let dram = PageRange::new(Gpa::new(0), 0x10_0000).unwrap();
        let mut space = AddressSpace::new([dram], initial, alias).unwrap();
        let input = PageRange::new(Iova::new(0), 1 << 32).unwrap();
        let mut viommu = Viommu::new(input, bypass);
        let hosts = [ModelTable::new(&faults), ModelTable::new(&faults)];
        for (host, endpoint) in hosts.iter().zip([E0, E1]) {
            let reserved = Reserved::new([(window(), Reason::Msi)]);
            let spec = TableSpec {
                table: Table::T0,
                binding: viommu.unattached(),
                reserved: reserved.clone(),
                reach: Iova::new((1 << 32) - 1),
                entry_limit: Some(16),
            };
            let table = space.attach(host.handle(), spec).unwrap();
            viommu.add(endpoint, table, reserved).unwrap();
        }
        Self {
            faults,
            space,
            viommu,
            hosts,
        }
    }

    fn plain() -> Self {
        Self::new(Visibility::Shared, Alias::InPlace, false)
    }

    fn ask(&mut self, request: Request) -> Status {
        let answer = self.viommu.apply(&mut self.space, request);
        self.space.check().unwrap();
        answer.status
    }

    fn attach(&mut self, endpoint: EndpointId, domain: u32, bypass: bool) -> Status {
        let domain = DomainId::new(domain);
        self.ask(Request::Attach {
            domain,
            endpoint,
            bypass,
        })
    }

    fn detach(&mut self, endpoint: EndpointId, domain: u32) -> Status {
        let domain = DomainId::new(domain);
        self.ask(Request::Detach { domain, endpoint })
    }

    fn map(&mut self, domain: u32, virt: (u64, u64), phys_start: u64) -> Status {
        self.ask(Request::Map {
            domain: DomainId::new(domain),
            virt_start: virt.0,
            virt_end: virt.1,
            phys_start,
            access: Access::ReadWrite,
            target: MapTarget::Memory,
        })
    }

    fn unmap(&mut self, domain: u32, virt_start: u64, virt_end: u64) -> Status {
        let domain = DomainId::new(domain);
        self.ask(Request::Unmap {
            domain,
            virt_start,
            virt_end,
        })
    }
}

#[test]
fn an_endpoint_reaches_what_its_domain_maps_and_nothing_once_it_has_left() {
    let mut rig = Rig::plain();
    assert_eq!(rig.attach(E0, 1, false), Status::Ok);
    assert_eq!(rig.map(1, (0x10_0000, 0x10_1fff), 0x4000), Status::Ok);
    assert_eq!(rig.attach(E1, 1, false), Status::Ok);
    assert_eq!(rig.hosts[0].mappings(), rig.hosts[1].mappings());
    assert_eq!(rig.hosts[0].mappings().len(), 1);
    assert_eq!(rig.detach(E0, 1), Status::Ok);
    assert!(rig.hosts[0].mappings().is_empty());
    assert_eq!(rig.detach(E1, 1), Status::Ok);
    // Its last endpoint took the domain with it.
    assert_eq!(rig.map(1, (0, 0xfff), 0), Status::NoEntry);
    assert_eq!(rig.attach(E0, 1, true), Status::Ok);
}

#[test]
fn each_wrong_request_gets_the_status_that_the_specification_wants() {
    let mut rig = Rig::plain();
    assert_eq!(rig.attach(EndpointId(99), 1, false), Status::NoEntry);
    assert_eq!(rig.attach(E0, 1, false), Status::Ok);
    assert_eq!(rig.attach(E1, 1, true), Status::Invalid);
    assert_eq!(rig.attach(E1, 2, true), Status::Ok);
    assert_eq!(rig.detach(E1, 1), Status::Invalid);
    assert_eq!(rig.detach(EndpointId(99), 1), Status::NoEntry);
    assert_eq!(rig.map(2, (0, 0xfff), 0), Status::Invalid);
    assert_eq!(rig.unmap(2, 0, 0xfff), Status::Invalid);
    assert_eq!(rig.map(3, (0, 0xfff), 0), Status::NoEntry);
    assert_eq!(rig.unmap(3, 0, 0xfff), Status::NoEntry);
    assert_eq!(rig.map(1, (0, 0x7ff), 0), Status::Range);
    assert_eq!(rig.map(1, (0x800, 0x17ff), 0), Status::Range);
    assert_eq!(rig.map(1, (0, 0xfff), 0x800), Status::Range);
    assert_eq!(rig.map(1, (0x1000, 0xfff), 0), Status::Range);
    assert_eq!(rig.map(1, (u64::MAX - 0xfff, u64::MAX), 0), Status::Range);
    assert_eq!(rig.map(1, (1 << 32, (1 << 32) + 0xfff), 0), Status::Range);
    assert_eq!(rig.map(1, (0, 0xfff), 0x10_0000), Status::Fault);
    assert_eq!(rig.map(1, (0, 0xfff), u64::MAX - 0xfff), Status::Fault);
    assert_eq!(rig.map(1, (0x8000, 0x8fff), 0), Status::Invalid);
    assert_eq!(rig.map(1, (0x7000, 0x9fff), 0), Status::Invalid);
    assert_eq!(rig.map(1, (0, 0x1fff), 0), Status::Ok);
    assert_eq!(rig.map(1, (0x1000, 0x2fff), 0), Status::Invalid);
    assert_eq!(rig.unmap(1, 0, 0xfff), Status::Range);
    assert_eq!(rig.hosts[0].mappings().len(), 1);
}

/// The examples of the specification, in pages.
#[test]
fn unmap_takes_whole_mappings_and_minds_no_holes() {
    /// What is mapped, what is unmapped, how that ends, and how many mappings are left.
    type Case = (&'static [(u64, u64)], (u64, u64), Status, usize);
    let page = |number: u64| number * PAGE_SIZE;
    let cases: [Case; 7] = [
        (&[], (0, 4), Status::Ok, 0),
        (&[(0, 6)], (0, 6), Status::Ok, 0),
        (&[(0, 3), (4, 7)], (0, 7), Status::Ok, 0),
        (&[(0, 7)], (0, 4), Status::Range, 1),
        (&[(0, 3), (4, 7)], (0, 3), Status::Ok, 1),
        (&[(0, 4)], (0, 9), Status::Ok, 0),
        (&[(0, 4), (10, 14)], (0, 14), Status::Ok, 0),
    ];
    for (mapped, (first, last), status, left) in cases {
        let mut rig = Rig::plain();
        assert_eq!(rig.attach(E0, 1, false), Status::Ok);
        for &(first, last) in mapped {
            let virt = (page(first), page(last + 1) - 1);
            assert_eq!(rig.map(1, virt, page(first)), Status::Ok);
        }
        assert_eq!(rig.unmap(1, page(first), page(last + 1) - 1), status);
        assert_eq!(rig.hosts[0].mappings().len(), left);
    }
    let mut rig = Rig::plain();
    assert_eq!(rig.attach(E0, 1, false), Status::Ok);
    assert_eq!(rig.map(1, (0, 0xfff), 0), Status::Ok);
    assert_eq!(rig.unmap(1, 0, u64::MAX), Status::Ok);
    assert!(rig.hosts[0].mappings().is_empty());
}

#[test]
fn bypass_decides_for_endpoints_without_a_domain() {
    let mut rig = Rig::new(Visibility::Shared, Alias::InPlace, true);
    // All of DRAM around the reserved window.
    assert_eq!(rig.hosts[0].mappings().len(), 2);
    assert_eq!(rig.attach(E1, 7, false), Status::Ok);
    assert!(rig.viommu.set_bypass(&mut rig.space, false).is_empty());
    assert!(rig.hosts[0].mappings().is_empty());
    assert!(rig.viommu.set_bypass(&mut rig.space, true).is_empty());
    assert_eq!(rig.hosts[0].mappings().len(), 2);
    assert!(rig.hosts[1].mappings().is_empty());
    assert!(rig.viommu.reset(&mut rig.space).is_empty());
    assert_eq!(rig.hosts[1].mappings().len(), 2);
}

#[test]
fn a_mapping_to_a_page_that_goes_private_goes_and_comes_back_with_it() {
    let bit = SharedBit::new(30).unwrap();
    let mut rig = Rig::new(Visibility::Shared, Alias::SharedBit(bit), false);
    let mut memory = ModelMemory::new(&rig.faults, Visibility::Shared);
    assert_eq!(rig.attach(E0, 1, false), Status::Ok);
    assert_eq!(
        rig.map(1, (0x5000, 0x6fff), bit.mask() | 0x4000),
        Status::Ok
    );
    let before = rig.hosts[0].pages();
    assert_eq!(before.len(), 2);
    let convert = |rig: &mut Rig, to, memory: &mut dyn PageFlip| {
        let request = rig.space.request(Gpa::new(0x4000), 0x1000, to).unwrap();
        rig.space.convert(request, memory).unwrap();
        rig.space.check().unwrap();
    };
    convert(&mut rig, Visibility::Private, &mut memory);
    assert_eq!(rig.hosts[0].pages().len(), 1);
    convert(&mut rig, Visibility::Shared, &mut memory);
    assert_eq!(rig.hosts[0].pages(), before);
    // The guest's own mapping was there all the time, and goes whole.
    assert_eq!(rig.unmap(1, 0x5000, 0x6fff), Status::Ok);
    assert!(rig.hosts[0].mappings().is_empty());
}

#[test]
fn a_host_that_refuses_is_no_success() {
    let mut rig = Rig::plain();
    assert_eq!(rig.attach(E0, 1, false), Status::Ok);
    rig.faults.set([(0, Fault::Refuse)]);
    assert_eq!(rig.map(1, (0, 0xfff), 0), Status::DeviceError);
    assert_eq!(rig.map(1, (0, 0xfff), 0), Status::Ok);
    for page in 9..24 {
        let virt = (page * PAGE_SIZE, page * PAGE_SIZE + 0xfff);
        assert_eq!(rig.map(1, virt, 0), Status::Ok);
    }
    assert_eq!(rig.map(1, (0x10_0000, 0x10_0fff), 0), Status::NoMemory);
    rig.faults.set([(0, Fault::Refuse)]);
    assert_eq!(rig.detach(E0, 1), Status::DeviceError);
    assert_eq!(rig.viommu.domain_of(E0), Some(DomainId::new(1)));
}

#[test]
fn probe_tells_the_reserved_windows() {
    let rig = Rig::plain();
    let properties = rig.viommu.probe(E0).unwrap();
    let expected = [
        &[1, 0, 20, 0, 1, 0, 0, 0][..],
        &0x8000_u64.to_le_bytes(),
        &0x8fff_u64.to_le_bytes(),
    ];
    assert_eq!(properties, expected.concat());
    assert_eq!(rig.viommu.probe(EndpointId(99)), None);
}

#[test]
fn no_page_is_offered_that_is_smaller_than_what_converts() {
    let rig = Rig::plain();
    let config = rig.viommu.config(0x4020_1000 | 1);
    assert_eq!(config.page_size_mask.get(), 0x4020_1000);
    assert_eq!(config.input_end.get(), u64::from(u32::MAX));
}

#[test]
fn the_doorbell_is_told_to_every_endpoint_and_never_mapped() {
    let mut rig = Rig::plain();
    let input = PageRange::new(Iova::new(0), 1 << 32).unwrap();
    let doorbell = PageRange::new(Gpa::new(0x80_0000), 0x1_0000).unwrap();
    rig.viommu = Viommu::new(input, false).with_doorbell(doorbell);
    let table = rig.space.tables().next().unwrap();
    rig.viommu.add(E0, table, Reserved::default()).unwrap();
    let properties = rig.viommu.probe(E0).unwrap();
    assert_eq!(properties[4], ReservedMemory::MSI);
    assert_eq!(properties[8..16], 0x80_0000_u64.to_le_bytes());
    assert_eq!(properties[16..24], 0x80_ffff_u64.to_le_bytes());
    assert_eq!(rig.attach(E0, 1, false), Status::Ok);
    let inside = (0x80_f000, 0x80_ffff);
    assert_eq!(rig.map(1, inside, 0x1000), Status::Invalid);
    assert_eq!(rig.map(1, (0x81_0000, 0x81_0fff), 0x1000), Status::Ok);
}

#[test]
fn registers_of_a_device_are_never_mapped() {
    let mut rig = Rig::plain();
    assert_eq!(rig.attach(E0, 1, false), Status::Ok);
    let mut map = |domain, virt_start, phys_start| {
        rig.ask(Request::Map {
            domain: DomainId::new(domain),
            virt_start,
            virt_end: virt_start + 0xfff,
            phys_start,
            access: Access::ReadWrite,
            target: MapTarget::Device,
        })
    };
    assert_eq!(map(2, 0, 0x1000), Status::NoEntry);
    assert_eq!(map(1, 0, 0x800_0000), Status::Fault);
    assert_eq!(map(1, 0, 0x1000), Status::Fault);
    assert_eq!(map(1, 0x800, 0x800_0000), Status::Range);
    assert!(rig.hosts[0].mappings().is_empty());
}
