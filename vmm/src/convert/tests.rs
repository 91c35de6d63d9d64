mod translation;

use iommu::{Access, Binding, Iova, Reserved, Table};

use super::*;

const DRAM: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;
const BIT: u8 = 32;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// Two DRAM ranges of 4 MiB with a hole of 4 MiB between them.
fn realm() -> Pages {
    Pages::with_dram(
        &[range(DRAM, 4 * MIB), range(DRAM + 8 * MIB, 4 * MIB)],
        Some(BIT),
    )
    .unwrap()
}

/// What a host table was told, and what it says to the next call.
#[derive(Default)]
struct Host {
    calls: Vec<(&'static str, u64, u64)>,
    fails: Option<&'static str>,
}

struct Table0(Arc<Mutex<Host>>);

impl Table0 {
    fn call(&self, name: &'static str, iova: PageRange<Iova>) -> Result<(), HostError> {
        let mut host = self.0.lock().unwrap();
        host.calls.push((name, iova.start().raw(), iova.bytes()));
        match host.fails {
            Some(call) if call == name => {
                Err(HostError::without_effect(name, std::io::Error::other("no")))
            }
            _ => Ok(()),
        }
    }
}

impl DmaTable for Table0 {
    fn map(&mut self, iova: PageRange<Iova>, _: Gpa, _: Access) -> Result<(), HostError> {
        self.call("map", iova)
    }
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        self.call("unmap", iova)
    }
}

fn attach(pages: &Pages) -> Arc<Mutex<Host>> {
    let host = Arc::default();
    let spec = TableSpec {
        table: Table::T0,
        binding: Binding::Identity,
        reserved: Reserved::default(),
        reach: Iova::new((1 << 33) - 1),
        entry_limit: None,
    };
    pages
        .attach(Box::new(Table0(Arc::clone(&host))), spec)
        .unwrap();
    host
}

fn accepted(reached: u64) -> RipasProgress {
    RipasProgress {
        reached: Gpa::new(reached),
        response: Response::Accept,
    }
}

fn rejected(reached: u64) -> RipasProgress {
    RipasProgress {
        response: Response::Reject,
        ..accepted(reached)
    }
}

#[test]
fn a_plain_vm_shows_all_of_its_memory_to_devices() {
    let pages = Pages::with_dram(&[range(DRAM, 4 * MIB)], None).unwrap();
    let host = attach(&pages);
    assert_eq!(host.lock().unwrap().calls, [("map", DRAM, 4 * MIB)]);
}

#[test]
fn a_shared_page_is_in_the_table_at_its_alias_until_it_is_private_again() {
    let pages = realm();
    let host = attach(&pages);
    assert!(host.lock().unwrap().calls.is_empty());
    let part = range(DRAM + MIB, MIB);
    pages.write_private(part.start(), &[1; 8]).unwrap();
    assert_eq!(
        pages.set_ripas(part, RipasChange::Empty),
        accepted(DRAM + 2 * MIB)
    );
    let alias = DRAM + MIB + (1 << BIT);
    assert_eq!(host.lock().unwrap().calls, [("map", alias, MIB)]);
    assert_eq!(pages.write_private(part.start(), &[1]), Err(NotPrivate));
    assert_eq!(
        pages.set_ripas(part, RipasChange::Ram),
        accepted(DRAM + 2 * MIB)
    );
    assert_eq!(host.lock().unwrap().calls[1..], [("unmap", alias, MIB)]);
    let mut bytes = [9; 8];
    pages.read_private(part.start(), &mut bytes).unwrap();
    assert_eq!(bytes, [0; 8]);
    let statistics = pages.statistics();
    assert_eq!(statistics.to_shared.pages, 256);
    assert_eq!(statistics.to_private.pages, 256);
}

#[test]
fn a_page_that_is_as_asked_costs_nothing() {
    let pages = realm();
    let host = attach(&pages);
    let all = range(DRAM, 4 * MIB);
    pages.write_private(all.start(), &[5]).unwrap();
    assert_eq!(
        pages.set_ripas(all, RipasChange::Ram),
        accepted(DRAM + 4 * MIB)
    );
    let mut byte = [0];
    pages.read_private(all.start(), &mut byte).unwrap();
    assert_eq!(
        byte,
        [5],
        "a kernel sets all of its memory to RAM when it boots"
    );
    assert!(host.lock().unwrap().calls.is_empty());
    assert_eq!(pages.statistics(), Statistics::default());
}

#[test]
fn a_device_table_that_refuses_makes_the_guest_hear_no() {
    let pages = realm();
    let host = attach(&pages);
    let part = range(DRAM, MIB);
    pages.set_ripas(part, RipasChange::Empty);
    host.lock().unwrap().fails = Some("unmap");
    assert_eq!(pages.set_ripas(part, RipasChange::Ram), rejected(DRAM));
    assert_eq!(
        pages.ripas(part),
        (part.end(), Ripas::Empty),
        "still shared"
    );
    host.lock().unwrap().fails = None;
    assert_eq!(
        pages.set_ripas(part, RipasChange::Ram),
        accepted(DRAM + MIB)
    );
}

#[test]
fn a_page_that_no_table_can_gain_is_destroyed_and_its_device_cut_off() {
    let pages = realm();
    let host = attach(&pages);
    let damage = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&damage);
    pages.on_quarantine(Box::new(move |tables| {
        *seen.lock().unwrap() += tables.len()
    }));
    host.lock().unwrap().fails = Some("map");
    let part = range(DRAM, MIB);
    assert_eq!(pages.set_ripas(part, RipasChange::Empty), rejected(DRAM));
    assert_eq!(*damage.lock().unwrap(), 1);
    assert_eq!(
        pages.ripas(range(DRAM, 4 * MIB)),
        (part.end(), Ripas::Destroyed)
    );
    assert_eq!(pages.set_ripas(part, RipasChange::Ram), rejected(DRAM));
    assert_eq!(pages.write_private(Gpa::new(DRAM), &[0]), Err(NotPrivate));
}

#[test]
fn what_is_not_dram_is_empty_and_stays_so() {
    let pages = realm();
    let (hole, second) = (DRAM + 4 * MIB, DRAM + 8 * MIB);
    assert_eq!(
        pages.ripas(range(0, 1 << 31)),
        (Gpa::new(DRAM), Ripas::Empty)
    );
    assert_eq!(
        pages.ripas(range(DRAM, 1 << 31)),
        (Gpa::new(hole), Ripas::Ram)
    );
    assert_eq!(
        pages.ripas(range(hole, 1 << 31)),
        (Gpa::new(second), Ripas::Empty)
    );
    let above = range(1 << 31, 1 << 31);
    assert_eq!(pages.ripas(above), (above.end(), Ripas::Empty));
    let across = range(hole, 8 * MIB);
    assert_eq!(
        pages.set_ripas(across, RipasChange::Empty),
        accepted(second)
    );
    assert_eq!(pages.set_ripas(across, RipasChange::Ram), rejected(hole));
    let from_dram = range(DRAM, 6 * MIB);
    assert_eq!(pages.set_ripas(from_dram, RipasChange::Ram), accepted(hole));
}

#[test]
fn private_access_is_all_or_nothing() {
    let pages = realm();
    pages.set_ripas(range(DRAM + 0x1000, 0x1000), RipasChange::Empty);
    let mut bytes = [0; 16];
    assert_eq!(
        pages.read_private(Gpa::new(DRAM + 0xff8), &mut bytes),
        Err(NotPrivate)
    );
    assert_eq!(
        pages.write_private(Gpa::new(DRAM + 0xff8), &bytes),
        Err(NotPrivate)
    );
    assert_eq!(pages.write_private(Gpa::new(DRAM + 0xff0), &bytes), Ok(()));
    assert_eq!(pages.write_private(Gpa::new(DRAM), &[]), Ok(()));
    assert_eq!(
        pages.write_private(Gpa::new(DRAM + 0x1000), &[]),
        Err(NotPrivate)
    );
    let last = DRAM + 4 * MIB - 8;
    assert_eq!(pages.write_private(Gpa::new(last), &bytes), Err(NotPrivate));
    assert_eq!(
        pages.write_private(Gpa::new(u64::MAX - 7), &bytes),
        Err(NotPrivate)
    );
}

#[test]
fn a_call_is_bounded_and_the_guest_asks_again_for_the_rest() {
    let pages = realm();
    for page in (0..600).step_by(2) {
        pages.set_ripas(range(DRAM + page * 0x1000, 0x1000), RipasChange::Empty);
    }
    let all = range(DRAM, 4 * MIB);
    let first = pages.set_ripas(all, RipasChange::Ram);
    assert_eq!(first.response, Response::Accept);
    assert!(first.reached < all.end(), "{first:?}");
    let rest = PageRange::from_bounds(first.reached, all.end()).unwrap();
    assert_eq!(
        pages.set_ripas(rest, RipasChange::Ram),
        accepted(all.end().raw())
    );
}

#[test]
fn a_guest_cannot_use_up_the_mappings_of_its_host() {
    let pages = Pages::with_dram(&[range(DRAM, 256 * MIB)], Some(BIT)).unwrap();
    let all = range(DRAM, 256 * MIB);
    let every_second = (DRAM..all.end().raw()).step_by(0x2000);
    let share = |page| {
        pages
            .set_ripas(range(page, 0x1000), RipasChange::Empty)
            .response
    };
    let refused = every_second
        .clone()
        .find(|&page| share(page) == Response::Reject);
    let refused = refused.expect("the host has no limit");
    assert_eq!(pages.statistics().damaged, 0);
    let maps = std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count();
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    assert!(maps + 500 < limit.trim().parse().unwrap(), "{maps}");
    assert_eq!(share(refused), Response::Reject);
    assert_eq!(
        share(refused - 0x1000),
        Response::Accept,
        "this one joins two"
    );
    let mut rest = all;
    while let Ok(next) = {
        let progress = pages.set_ripas(rest, RipasChange::Ram);
        assert_eq!(progress.response, Response::Accept);
        PageRange::from_bounds(progress.reached, all.end())
    } {
        rest = next;
    }
    assert_eq!(pages.ripas(all), (all.end(), Ripas::Ram));
    assert_eq!(share(refused), Response::Accept);
}
