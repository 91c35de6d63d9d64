use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;

use super::*;
use crate::page_state::Visibility;
use crate::reserved::Reserved;
use crate::table::HostError;

/// Mappings of single pages, some of which go on in each other.
fn mappings() -> impl Strategy<Value = BTreeMap<u64, u64>> {
    let shift = prop_oneof![3 => Just(0u64), 1 => Just(64)];
    proptest::collection::btree_map(0..24u64, shift, 0..16)
}

fn assemble(pages: &BTreeMap<u64, u64>) -> Vec<Mapping> {
    let single = pages.iter().map(|(page, shift)| Mapping {
        iova: PageRange::new(Iova::new(page << 12), 4096).unwrap(),
        gpa: Gpa::new((page + shift) << 12),
        access: Access::ReadWrite,
    });
    joined(single).collect()
}

fn pages(mappings: impl Iterator<Item = Mapping>) -> BTreeMap<u64, u64> {
    let pages = mappings.flat_map(|mapping| {
        let (iova, gpa) = (mapping.iova.start().raw() >> 12, mapping.gpa.raw() >> 12);
        (0..mapping.iova.pages()).map(move |page| (iova + page, gpa - iova))
    });
    pages.collect()
}

proptest! {
    #[test]
    fn what_is_lacking_is_what_a_walk_by_page_finds(wanted in mappings(), held in mappings()) {
        let mut expected = wanted.clone();
        expected.retain(|page, shift| held.get(page) != Some(shift));
        let found = lacking(&assemble(&wanted), &assemble(&held));
        prop_assert_eq!(pages(found.into_iter()), expected);
    }
}

/// What a host holds, for the test to meddle with.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<Holdings>>);

impl Host {
    fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.0.lock().unwrap()
    }
}

impl DmaTable for Host {
    fn map(&mut self, iova: PageRange<Iova>, _: Gpa, _: Access) -> Result<(), HostError> {
        self.holdings().mapped.push(iova);
        Ok(())
    }
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        self.holdings().mapped.retain(|held| !iova.covers(*held));
        Ok(())
    }
    fn holdings(&self) -> Option<Holdings> {
        Some(self.0.lock().unwrap().clone())
    }
}

/// Sixteen shared pages behind one table that has room for eight mappings.
fn attached() -> (AddressSpace<Host>, TableId, Host) {
    let dram = PageRange::new(Gpa::new(0), 16 << 12).unwrap();
    let mut space = AddressSpace::new([dram], Visibility::Shared, Alias::InPlace).unwrap();
    let host = Host::default();
    let spec = TableSpec {
        table: Table::T0,
        binding: Binding::Identity,
        reserved: Reserved::default(),
        reach: Iova::new(u64::MAX),
        entry_limit: Some(8),
    };
    let id = space.attach(host.clone(), spec).unwrap();
    host.holdings().entries_left = Some(7);
    (space, id, host)
}

fn iovas(start: u64, pages: u64) -> PageRange<Iova> {
    PageRange::new(Iova::new(start << 12), pages << 12).unwrap()
}

#[test]
fn a_table_that_follows_is_clean() {
    let (space, id, _) = attached();
    let snapshot = space.snapshot(id).unwrap();
    assert_eq!(snapshot.verify(), []);
    assert_eq!(snapshot.counted(), Some(1));
    assert_eq!(snapshot.derive(Table::T0), snapshot.derive(Table::T1));
}

#[test]
fn what_the_host_has_lost_or_kept_is_told_by_extent() {
    let (space, id, host) = attached();
    host.holdings().mapped = vec![iovas(0, 4), iovas(6, 10), iovas(32, 2)];
    host.holdings().entries_left = Some(5);
    let differences = space.snapshot(id).unwrap().verify();
    assert_eq!(
        differences,
        [
            Difference::Lost(iovas(4, 2)),
            Difference::Leaked(iovas(32, 2)),
            Difference::Count {
                host: 3,
                recorded: 1
            },
        ]
    );
}

#[test]
fn a_record_that_does_not_follow_the_pages_is_told_by_extent() {
    let (mut space, id, host) = attached();
    let table = space.tables.get_mut(&id).unwrap();
    table.mapped.take_within(iovas(0, 16));
    let elsewhere = Mapping {
        iova: iovas(0, 4),
        gpa: Gpa::new(4 << 12),
        access: Access::ReadWrite,
    };
    table.mapped.insert(elsewhere).unwrap();
    host.holdings().mapped = vec![iovas(0, 4)];
    let differences = space.snapshot(id).unwrap().verify();
    let missing = Mapping {
        iova: iovas(0, 16),
        gpa: Gpa::new(0),
        access: Access::ReadWrite,
    };
    assert_eq!(
        differences,
        [Difference::Missing(missing), Difference::Surplus(elsewhere)]
    );
}
