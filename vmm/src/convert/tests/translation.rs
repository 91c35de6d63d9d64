//! What the guest's IOMMU, emulated devices and conversions do to each other.

use devices::virtio::DeviceMemory;
use devices::virtio::iommu::IommuBackend;
use iommu::request::MapTarget;
use iommu::request::Request;
use iommu::wire::Status;
use iommu::{Reason, Visibility};
use vm_memory::{GuestMemory, Permissions};

use super::*;

const ENDPOINT: EndpointId = EndpointId(8);
const DOMAIN: DomainId = DomainId::new(1);

/// A Realm whose IOMMU has one endpoint, in bypass mode.
fn translated() -> (Arc<Pages>, Translation, Arc<Mutex<Host>>) {
    let pages = Arc::new(realm());
    let host: Arc<Mutex<Host>> = Arc::default();
    let input = PageRange::from_bounds(Iova::new(0), Iova::new(1 << 33)).unwrap();
    let mut viommu = Viommu::new(input, true);
    let reserved = PageRange::new(Iova::new(0x800_0000), MIB).unwrap();
    let reserved = Reserved::new([(reserved, Reason::Host)]);
    let spec = TableSpec {
        table: Table::T0,
        binding: viommu.unattached(),
        reserved: reserved.clone(),
        reach: input.last(),
        entry_limit: None,
    };
    let table = pages.attach(Box::new(Table0(Arc::clone(&host))), spec);
    viommu.add(ENDPOINT, table.unwrap(), reserved).unwrap();
    let translation = Translation::new(Arc::clone(&pages), viommu, 0x4020_1000);
    (pages, translation, host)
}

fn attach_endpoint() -> Request {
    Request::Attach {
        domain: DOMAIN,
        endpoint: ENDPOINT,
        bypass: false,
    }
}

fn map(iova: u64, name: u64, bytes: u64) -> Request {
    Request::Map {
        domain: DOMAIN,
        virt_start: iova,
        virt_end: iova + bytes - 1,
        phys_start: name,
        access: Access::ReadWrite,
        target: MapTarget::Memory,
    }
}

fn set(pages: &Pages, part: PageRange<Gpa>, to: Visibility) {
    let change = match to {
        Visibility::Shared => RipasChange::Empty,
        Visibility::Private => RipasChange::Ram,
    };
    assert_eq!(pages.set_ripas(part, change), accepted(part.end().raw()));
}

#[test]
fn a_guest_mapping_has_its_effect_while_its_page_is_shared() {
    let (pages, mut translation, host) = translated();
    let part = range(DRAM, MIB);
    let alias = DRAM + (1 << BIT);
    assert_eq!(translation.apply(attach_endpoint()), Status::Ok);
    assert_eq!(translation.apply(map(0x10_0000, alias, MIB)), Status::Ok);
    assert_eq!(host.lock().unwrap().calls, [], "the pages are private");
    set(&pages, part, Visibility::Shared);
    set(&pages, part, Visibility::Private);
    set(&pages, part, Visibility::Shared);
    let calls = std::mem::take(&mut host.lock().unwrap().calls);
    let (mapped, unmapped) = (("map", 0x10_0000, MIB), ("unmap", 0x10_0000, MIB));
    assert_eq!(calls, [mapped, unmapped, mapped]);
    translation.reset();
    let calls = std::mem::take(&mut host.lock().unwrap().calls);
    assert_eq!(calls, [unmapped, ("map", alias, MIB)], "bypass again");
}

#[test]
fn a_device_that_keeps_what_it_must_lose_is_cut_off() {
    let (pages, mut translation, host) = translated();
    set(&pages, range(DRAM, MIB), Visibility::Shared);
    let lost = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&lost);
    pages.on_quarantine(Box::new(move |tables| {
        *seen.lock().unwrap() += tables.len()
    }));
    host.lock().unwrap().fails = Some("unmap");
    assert_eq!(translation.apply(attach_endpoint()), Status::DeviceError);
    assert_eq!(*lost.lock().unwrap(), 0, "all is as it was");
    translation.set_bypass(false);
    assert_eq!(*lost.lock().unwrap(), 1);
    assert_eq!(translation.config().bypass, 0);
}

#[test]
fn emulated_devices_reach_shared_pages_by_their_shared_names() {
    let pages = Arc::new(realm());
    let memory = SharedMemory::new(Arc::clone(&pages));
    let part = range(DRAM, 0x2000);
    let alias = GuestAddress(DRAM + (1 << BIT));
    let may = |at: GuestAddress, bytes| memory.hold().check_range(at, bytes, Permissions::Write);
    assert!(!may(alias, 1));
    set(&pages, part, Visibility::Shared);
    assert!(may(alias, 0x2000));
    assert!(!may(alias, 0x2001), "the page behind them is private");
    assert!(!may(GuestAddress(DRAM), 1), "not by the private name");
    assert!(!may(GuestAddress(u64::MAX), 2));
    let across = GuestAddress(alias.0 + 0xffe);
    memory.hold().write_slice(b"ring", across).unwrap();
    let mut seen = [0; 4];
    let ram = pages.ram().memory();
    ram.read_slice(&mut seen, GuestAddress(DRAM + 0xffe))
        .unwrap();
    assert_eq!(&seen, b"ring");
    set(&pages, part, Visibility::Private);
    assert!(memory.hold().read_slice(&mut seen, alias).is_err());
}

#[test]
fn a_page_becomes_private_only_when_no_device_is_at_it() {
    let pages = Arc::new(realm());
    let memory = SharedMemory::new(Arc::clone(&pages));
    let part = range(DRAM, 0x1000);
    set(&pages, part, Visibility::Shared);
    let held = memory.hold();
    let (done, converted) = std::sync::mpsc::channel();
    let converting = {
        let pages = Arc::clone(&pages);
        std::thread::spawn(move || {
            set(&pages, part, Visibility::Private);
            done.send(()).unwrap();
        })
    };
    let early = converted.recv_timeout(std::time::Duration::from_millis(50));
    assert!(early.is_err(), "the page went while a device held it");
    let alias = GuestAddress(DRAM + (1 << BIT));
    held.write_slice(b"data", alias).unwrap();
    drop(held);
    converted.recv().unwrap();
    converting.join().unwrap();
    let mut seen = [1; 4];
    pages.read_private(part.start(), &mut seen).unwrap();
    assert_eq!(seen, [0; 4], "a private page begins with nothing in it");
}

#[test]
fn emulated_devices_reach_all_of_a_plain_vm() {
    let plain = Pages::with_dram(&[range(DRAM, 4 * MIB)], None).unwrap();
    let memory = SharedMemory::new(Arc::new(plain));
    let may = |at, bytes| {
        let at = GuestAddress(at);
        memory.hold().check_range(at, bytes, Permissions::Write)
    };
    assert!(may(DRAM, 0x1000));
    assert!(!may(DRAM + 4 * MIB - 1, 2));
    assert!(!may(0, 1));
}
