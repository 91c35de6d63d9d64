//! The order of everything that a conversion does, on a scripted kernel.

use devices::virtio::DeviceMemory;
use iommu::{Access, Binding, DmaTable, Health, Iova, PageState, Reserved, Table, TableSpec};
use kvm::VmKind;
use kvm::cca::RealmAbi;
use scripted::{Form, Host, Kernel};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use super::*;
use crate::convert::SharedMemory;

const DRAM: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;
const BIT: u8 = 35;
const ALIAS: u64 = 1 << BIT;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// A table that notes what it is told, and what private memory there is then.
struct Noting {
    fails: Option<&'static str>,
}

impl Noting {
    fn note(&self, what: &'static str, iova: PageRange<Iova>) -> Result<(), HostError> {
        let at = iova.start().raw();
        let private = match scripted::private(at & !ALIAS) {
            Some(byte) => format!("{byte:#x}"),
            None => "none".to_owned(),
        };
        scripted::note(format!(
            "table {what} {at:#x} {:#x}, private {private}",
            iova.bytes()
        ));
        match self.fails == Some(what) {
            true => Err(HostError::without_effect(what, std::io::Error::other("no"))),
            false => Ok(()),
        }
    }
}

impl DmaTable for Noting {
    fn map(&mut self, iova: PageRange<Iova>, _: Gpa, _: Access) -> Result<(), HostError> {
        self.note("map", iova)
    }
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        self.note("unmap", iova)
    }
}

fn spec() -> TableSpec {
    TableSpec {
        table: Table::T0,
        binding: Binding::Identity,
        reserved: Reserved::default(),
        reach: Iova::new((1 << 36) - 1),
        entry_limit: None,
    }
}

/// A Realm of two DRAM ranges of 2 MiB with a hole between them, and its first page filled.
fn realm() -> (Kernel, Pages) {
    realm_of(Form::EnableCap, RealmAbi::EnableCap)
}

fn realm_of(form: Form, abi: RealmAbi) -> (Kernel, Pages) {
    let kernel = Kernel::start(Host::new(form));
    let dram = [range(DRAM, 2 * MIB), range(DRAM + 4 * MIB, 2 * MIB)];
    let vm = Vm::create(VmKind::Realm(abi), BIT + 1).unwrap();
    let parameters = kvm::cca::RealmParameters {
        hash: kvm::cca::RealmHash::Sha256,
        personalization: None,
    };
    let configured = kvm::cca::Configured::new(&vm, &parameters).unwrap();
    let pages = Pages::in_guest_memfd_with(&dram, Some(BIT), &vm).unwrap();
    vm.add_ram(pages.ram()).unwrap();
    let memory = pages.ram().memory();
    memory.write_obj(0x11_u8, GuestAddress(DRAM)).unwrap();
    let unmeasured = configured.build(&dram).unwrap();
    unmeasured.populate(pages.ram(), range(DRAM, MIB)).unwrap();
    assert_eq!(kernel.private(DRAM), Some(0x11));
    (kernel, pages)
}

/// What is noted while `act` acts.
fn noted<T>(kernel: &Kernel, act: impl FnOnce() -> T) -> (T, Vec<String>) {
    let before = kernel.notes().len();
    let done = act();
    (done, kernel.notes().split_off(before))
}

#[test]
fn every_page_starts_private_and_in_no_table() {
    let (kernel, pages) = realm();
    let attach = || {
        pages
            .attach(Box::new(Noting { fails: None }), spec())
            .unwrap()
    };
    assert_eq!(noted(&kernel, attach).1, [""; 0]);
    assert_eq!(
        pages.space().states().at(Gpa::new(DRAM)),
        Some(PageState::Private)
    );
}

#[test]
fn the_losing_table_then_the_attribute_then_the_hole_then_the_gaining_table() {
    let (kernel, pages) = realm();
    pages
        .attach(Box::new(Noting { fails: None }), spec())
        .unwrap();
    let page = range(DRAM, 0x1000);
    let (converted, notes) = noted(&kernel, || pages.convert_all(page, Visibility::Shared));
    assert_eq!(converted, Ok(1));
    assert_eq!(
        notes,
        [
            "vm SET_MEMORY_ATTRIBUTES 0x40000000 0x1000 0x0 0x0",
            "table map 0x840000000 0x1000, private none",
        ]
    );
    let (converted, notes) = noted(&kernel, || pages.convert_all(page, Visibility::Private));
    assert_eq!(converted, Ok(1));
    assert_eq!(
        notes,
        [
            "table unmap 0x840000000 0x1000, private none",
            "vm SET_MEMORY_ATTRIBUTES 0x40000000 0x1000 0x8 0x0",
        ]
    );
    let memory = pages.ram().memory();
    let left: u8 = memory.read_obj(GuestAddress(DRAM)).unwrap();
    assert_eq!(left, 0, "what was shared is gone with the shared form");
}

#[test]
fn where_nobody_is_told_the_hole_comes_between_the_tables() {
    let (kernel, pages) = realm_of(Form::PrivateFiles, RealmAbi::PrivateFiles);
    let table = Noting { fails: None };
    let table = pages.attach(Box::new(table), spec()).unwrap();
    let page = range(DRAM, 0x1000);
    let (converted, notes) = noted(&kernel, || pages.convert_all(page, Visibility::Shared));
    assert_eq!(converted, Ok(1));
    assert_eq!(notes, ["table map 0x840000000 0x1000, private none"]);
    let memory = pages.ram().memory();
    memory.write_obj(0x22_u8, GuestAddress(DRAM)).unwrap();
    let (converted, notes) = noted(&kernel, || pages.convert_all(page, Visibility::Private));
    assert_eq!(converted, Ok(1));
    assert_eq!(notes, ["table unmap 0x840000000 0x1000, private none"]);
    let left: u8 = memory.read_obj(GuestAddress(DRAM)).unwrap();
    assert_eq!(left, 0, "what was shared is gone with the shared form");
    assert_eq!(pages.space().health(table), Some(Health::Sound));
}

#[test]
fn a_table_that_does_not_let_go_keeps_the_page_shared() {
    let (_kernel, pages) = realm_of(Form::PrivateFiles, RealmAbi::PrivateFiles);
    let table = Noting {
        fails: Some("unmap"),
    };
    pages.attach(Box::new(table), spec()).unwrap();
    let page = range(DRAM, 0x1000);
    pages.convert_all(page, Visibility::Shared).unwrap();
    let memory = pages.ram().memory();
    memory.write_obj(0x22_u8, GuestAddress(DRAM)).unwrap();
    pages.convert_all(page, Visibility::Private).unwrap_err();
    let left: u8 = memory.read_obj(GuestAddress(DRAM)).unwrap();
    assert_eq!(left, 0x22, "a device may still be at it");
}

#[test]
fn a_wish_beyond_dram_converts_what_is_dram() {
    let (kernel, pages) = realm();
    let all = range(DRAM - 2 * MIB, 64 * MIB);
    let (converted, notes) = noted(&kernel, || pages.convert_all(all, Visibility::Shared));
    assert_eq!(converted, Ok(4 * MIB / iommu::PAGE_SIZE));
    assert_eq!(
        notes,
        [
            "vm SET_MEMORY_ATTRIBUTES 0x40000000 0x200000 0x0 0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x40400000 0x200000 0x0 0x0",
        ]
    );
    let (converted, notes) = noted(&kernel, || pages.convert_all(all, Visibility::Shared));
    assert_eq!(converted, Ok(4 * MIB / iommu::PAGE_SIZE));
    assert_eq!(notes, [""; 0], "they are shared already");
    let none = range(DRAM + 2 * MIB, 2 * MIB);
    assert_eq!(pages.convert_all(none, Visibility::Shared), Ok(0));
}

#[test]
fn more_extents_than_one_step_takes_are_all_converted() {
    let (_kernel, pages) = realm();
    for page in (0..500).step_by(2) {
        let one = range(DRAM + page * 0x1000, 0x1000);
        pages.convert_all(one, Visibility::Shared).unwrap();
    }
    pages
        .convert_all(range(DRAM, 2 * MIB), Visibility::Private)
        .unwrap();
    let extents = pages.space().states().extent_count();
    assert_eq!(extents, 2, "one for each DRAM range");
}

#[test]
fn an_attribute_that_is_refused_leaves_all_as_it_was() {
    let (kernel, pages) = realm();
    let table = pages
        .attach(Box::new(Noting { fails: None }), spec())
        .unwrap();
    let page = range(DRAM, 0x1000);
    kernel.fail(1, 12);
    let refused = pages.convert_all(page, Visibility::Shared).unwrap_err();
    assert_eq!(
        (refused.at, refused.to),
        (Gpa::new(DRAM), Visibility::Shared)
    );
    assert_eq!(kernel.private(DRAM), Some(0x11));
    assert_eq!(
        pages.space().states().at(Gpa::new(DRAM)),
        Some(PageState::Private)
    );
    assert_eq!(pages.space().health(table), Some(Health::Sound));
    pages.convert_all(page, Visibility::Shared).unwrap();
    // The table has let go of the page by then, and gets it back.
    kernel.fail(2, 12);
    let (refused, notes) = noted(&kernel, || pages.convert_all(page, Visibility::Private));
    refused.unwrap_err();
    assert_eq!(
        notes,
        [
            "table unmap 0x840000000 0x1000, private none",
            "vm SET_MEMORY_ATTRIBUTES 0x40000000 0x1000 0x8 0x0",
            "table map 0x840000000 0x1000, private none",
        ]
    );
    assert_eq!(
        pages.space().states().at(Gpa::new(DRAM)),
        Some(PageState::Shared)
    );
}

#[test]
fn a_table_that_cannot_follow_puts_the_page_out_of_use() {
    let (_kernel, pages) = realm();
    let table = Noting { fails: Some("map") };
    let table = pages.attach(Box::new(table), spec()).unwrap();
    let page = range(DRAM, 0x1000);
    pages.convert_all(page, Visibility::Shared).unwrap_err();
    let space = pages.space();
    assert_eq!(
        space.states().at(Gpa::new(DRAM)),
        Some(PageState::Quarantined)
    );
    assert_eq!(space.health(table), Some(Health::Quarantined));
}

#[test]
fn an_emulated_device_reaches_shared_pages_by_their_shared_names_only() {
    let (_kernel, pages) = realm();
    let pages = std::sync::Arc::new(pages);
    let memory = SharedMemory::new(std::sync::Arc::clone(&pages));
    let reaches = |at| {
        let held = memory.hold();
        held.check_range(GuestAddress(at), 64, Permissions::ReadWrite)
    };
    assert!(!reaches(DRAM) && !reaches(DRAM | ALIAS));
    pages
        .convert_all(range(DRAM, 0x1000), Visibility::Shared)
        .unwrap();
    assert!(!reaches(DRAM) && reaches(DRAM | ALIAS));
    assert!(
        !reaches((DRAM | ALIAS) + 0x1000 - 32),
        "half of it is private"
    );
}
