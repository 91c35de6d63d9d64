mod oracle;
mod twin;

use super::*;
use crate::addr::PAGE_SIZE;
use crate::alias::SharedBit;
use crate::conversion::{ConvertError, Step};
use crate::domain::Binding;
use crate::mapping::Access;
use crate::model::{Fault, Faults, ModelMemory, ModelTable};
use crate::page_state::PageState;
use crate::reserved::{Reason, Reserved};

const BIT: u64 = 1 << 31;

fn gpas(start: u64, end: u64) -> PageRange<Gpa> {
    PageRange::from_bounds(Gpa::new(start * PAGE_SIZE), Gpa::new(end * PAGE_SIZE)).unwrap()
}

fn spec(table: Table) -> TableSpec {
    TableSpec {
        table,
        binding: Binding::Identity,
        reserved: Reserved::default(),
        reach: Iova::new(u64::MAX),
        entry_limit: None,
    }
}

struct Rig {
    faults: Faults,
    memory: ModelMemory,
    space: AddressSpace<ModelTable>,
}

impl Rig {
    fn new(initial: Visibility, alias: Alias) -> Self {
        let faults = Faults::none();
        Self {
            memory: ModelMemory::new(&faults, initial),
            space: AddressSpace::new([gpas(0, 16), gpas(32, 48)], initial, alias).unwrap(),
            faults,
        }
    }

    fn realm() -> Self {
        let bit = SharedBit::new(31).unwrap();
        Self::new(Visibility::Private, Alias::SharedBit(bit))
    }

    fn attach(&mut self, spec: TableSpec) -> (TableId, ModelTable) {
        let host = ModelTable::new(&self.faults);
        self.memory.watch(&host);
        (self.space.attach(host.handle(), spec).unwrap(), host)
    }

    fn convert(&mut self, range: PageRange<Gpa>, to: Visibility) -> Result<u64, ConvertError> {
        let request = self
            .space
            .request(range.start(), range.bytes(), to)
            .unwrap();
        let result = self.space.convert(request, &mut self.memory);
        self.space.check().unwrap();
        assert_eq!(self.memory.violations, 0);
        result.map(|converted| converted.pages)
    }
}

fn extents(host: &ModelTable) -> Vec<(u64, u64, u64)> {
    let pages = |raw: u64| raw / PAGE_SIZE;
    host.mappings()
        .iter()
        .map(|m| {
            (
                pages(m.iova.start().raw()),
                m.iova.pages(),
                pages(m.gpa.raw()),
            )
        })
        .collect()
}

#[test]
fn a_plain_vm_maps_all_of_dram_in_place_with_one_call_a_range() {
    let mut rig = Rig::new(Visibility::Shared, Alias::InPlace);
    let (_, host) = rig.attach(spec(Table::T0));
    assert_eq!(extents(&host), [(0, 16, 0), (32, 16, 32)]);
    assert_eq!(rig.space.statistics().calls, Calls { map: 2, unmap: 0 });
}

#[test]
fn a_shared_page_is_in_both_tables_at_its_alias_and_a_private_one_only_in_t1() {
    let mut rig = Rig::realm();
    let (_, t0) = rig.attach(spec(Table::T0));
    let (_, t1) = rig.attach(spec(Table::T1));
    assert_eq!(extents(&t0), []);
    assert_eq!(rig.convert(gpas(4, 8), Visibility::Shared).unwrap(), 4);
    let high = BIT / PAGE_SIZE;
    assert_eq!(extents(&t0), [(high + 4, 4, 4)]);
    assert_eq!(
        extents(&t1),
        [(0, 4, 0), (8, 8, 8), (32, 16, 32), (high + 4, 4, 4)]
    );
    assert_eq!(rig.convert(gpas(4, 8), Visibility::Private).unwrap(), 4);
    assert_eq!(extents(&t0), []);
    assert_eq!(
        extents(&t1),
        [(0, 4, 0), (4, 4, 4), (8, 8, 8), (32, 16, 32)]
    );
}

#[test]
fn a_conversion_that_changes_nothing_makes_no_call() {
    let mut rig = Rig::realm();
    rig.attach(spec(Table::T1));
    let before = rig.space.statistics();
    assert_eq!(rig.convert(gpas(0, 16), Visibility::Private).unwrap(), 0);
    assert_eq!(rig.space.statistics(), before);
    assert_eq!(rig.memory.calls, 0);
}

#[test]
fn a_mixed_range_converts_only_what_differs() {
    let mut rig = Rig::realm();
    let (_, t0) = rig.attach(spec(Table::T0));
    rig.convert(gpas(4, 6), Visibility::Shared).unwrap();
    assert_eq!(rig.convert(gpas(0, 8), Visibility::Shared).unwrap(), 6);
    assert_eq!(
        rig.space.statistics().to_shared,
        Flow {
            pages: 8,
            extents: 3
        }
    );
    assert_eq!(rig.space.states().extent_count(), 3);
    // Three mappings side by side go with one call.
    let before = rig.space.statistics().calls;
    rig.convert(gpas(0, 8), Visibility::Private).unwrap();
    assert_eq!(rig.space.statistics().calls.unmap, before.unmap + 1);
    assert_eq!(extents(&t0), []);
}

#[test]
fn a_mapping_that_loses_its_middle_is_mapped_again_in_two_parts() {
    let mut rig = Rig::realm();
    let (_, t0) = rig.attach(spec(Table::T0));
    rig.convert(gpas(0, 8), Visibility::Shared).unwrap();
    rig.convert(gpas(3, 5), Visibility::Private).unwrap();
    let high = BIT / PAGE_SIZE;
    assert_eq!(extents(&t0), [(high, 3, 0), (high + 5, 3, 5)]);
    assert_eq!(rig.space.statistics().calls, Calls { map: 3, unmap: 1 });
}

#[test]
fn a_reserved_window_is_never_mapped() {
    let mut rig = Rig::new(Visibility::Shared, Alias::InPlace);
    let window = PageRange::new(Iova::new(4 * PAGE_SIZE), 2 * PAGE_SIZE).unwrap();
    let (_, host) = rig.attach(TableSpec {
        reserved: Reserved::new([(window, Reason::Msi)]),
        ..spec(Table::T0)
    });
    assert_eq!(extents(&host), [(0, 4, 0), (6, 10, 6), (32, 16, 32)]);
    rig.convert(gpas(0, 16), Visibility::Private).unwrap();
    rig.convert(gpas(0, 16), Visibility::Shared).unwrap();
    assert_eq!(extents(&host), [(0, 4, 0), (6, 10, 6), (32, 16, 32)]);
}

#[test]
fn the_addresses_of_the_identity_are_both_names_of_dram_around_the_windows() {
    let window = PageRange::new(Iova::new(4 * PAGE_SIZE), PAGE_SIZE).unwrap();
    let reserved = Reserved::new([(window, Reason::Msi)]);
    let pages = |space: &AddressSpace<ModelTable>| {
        let addresses = space.identity_addresses(&reserved).into_iter();
        let bounds = |range: PageRange<Iova>| (range.start().raw(), range.pages());
        addresses.map(bounds).collect::<Vec<_>>()
    };
    let low = [(0, 4), (5 * PAGE_SIZE, 11), (32 * PAGE_SIZE, 16)];
    let high = [(BIT, 16), (BIT + 32 * PAGE_SIZE, 16)];
    assert_eq!(pages(&Rig::realm().space), [low.as_slice(), &high].concat());
    let plain = Rig::new(Visibility::Shared, Alias::InPlace);
    assert_eq!(pages(&plain.space), low);
}

#[test]
fn accepting_adds_private_pages_and_leaves_shared_ones_alone() {
    let mut rig = Rig::realm();
    let (id, host) = rig.attach(spec(Table::T0));
    rig.convert(gpas(4, 8), Visibility::Shared).unwrap();
    let before = rig.space.statistics().calls;
    rig.space.switch(id, Table::T1).unwrap();
    assert_eq!(rig.space.statistics().calls.unmap, before.unmap);
    assert_eq!(host.mappings().len(), 4);
    rig.space.switch(id, Table::T0).unwrap();
    assert_eq!(host.mappings().len(), 1);
    rig.space.check().unwrap();
}

#[test]
fn a_table_that_cannot_reach_all_of_dram_is_refused() {
    let mut rig = Rig::new(Visibility::Shared, Alias::InPlace);
    let short = TableSpec {
        reach: Iova::new(48 * PAGE_SIZE - 2),
        ..spec(Table::T0)
    };
    let host = ModelTable::new(&rig.faults);
    let refused = rig.space.attach(host.handle(), short);
    assert!(matches!(refused, Err(AttachError::OutOfReach { .. })));
    assert_eq!(host.mappings(), []);
}

#[test]
fn a_full_table_refuses_before_the_flip() {
    let mut rig = Rig::realm();
    let (_, host) = rig.attach(TableSpec {
        entry_limit: Some(1),
        ..spec(Table::T0)
    });
    rig.convert(gpas(0, 1), Visibility::Shared).unwrap();
    let refused = rig.convert(gpas(8, 9), Visibility::Shared).unwrap_err();
    assert!(matches!(
        refused,
        ConvertError::Refused {
            step: Step::Room(_),
            ..
        }
    ));
    assert_eq!(host.mappings().len(), 1);
    assert_eq!(
        rig.space.states().at(Gpa::new(8 * PAGE_SIZE)),
        Some(PageState::Private)
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let rig = Rig::realm();
    let refused = |start, bytes| {
        let request = rig
            .space
            .request(Gpa::new(start), bytes, Visibility::Shared);
        request.is_err()
    };
    assert!(refused(0, 0));
    assert!(refused(1, PAGE_SIZE));
    assert!(refused(0, 100));
    assert!(refused(u64::MAX - 4095, PAGE_SIZE));
    assert!(refused(15 * PAGE_SIZE, 2 * PAGE_SIZE));
    assert!(refused(BIT, PAGE_SIZE));
    assert!(refused(0, 33 * PAGE_SIZE));
    assert!(!refused(32 * PAGE_SIZE, 16 * PAGE_SIZE));
}

/// Makes each host call of a conversion fail in turn, in each way.
#[test]
fn a_failure_before_the_flip_changes_nothing_and_a_later_one_is_never_a_success() {
    for fault in [Fault::Refuse, Fault::Lose, Fault::Do] {
        for to in [Visibility::Shared, Visibility::Private] {
            let mut failed_at = 0;
            while fails_at(failed_at, fault, to) {
                failed_at += 1;
            }
            assert!(failed_at >= 4, "only {failed_at} calls in a conversion");
        }
    }
}

/// Whether call number `call` is part of the conversion.
fn fails_at(call: u32, fault: Fault, to: Visibility) -> bool {
    let mut rig = Rig::realm();
    let (_, t0) = rig.attach(spec(Table::T0));
    let (_, t1) = rig.attach(spec(Table::T1));
    rig.convert(gpas(0, 12), to.other()).unwrap();
    let range = gpas(2, 6);
    let before = (t0.pages(), t1.pages(), rig.memory.is_shared(range.start()));
    rig.faults.set([(call, fault)]);
    let result = rig.convert(range, to);
    let state = rig.space.states().at(range.start()).unwrap();
    match result {
        Ok(_) => {
            assert_eq!(state, to.into());
            return false;
        }
        Err(ConvertError::Refused { .. }) => {
            assert_eq!(state, to.other().into());
            assert_eq!(
                before,
                (t0.pages(), t1.pages(), rig.memory.is_shared(range.start()))
            );
        }
        Err(ConvertError::Damaged { damage, .. }) => {
            assert_eq!(damage.pages, state == PageState::Quarantined);
            assert!(damage.pages || state == to.other().into());
            for id in &damage.tables {
                assert_eq!(rig.space.health(*id), Some(Health::Quarantined));
            }
            assert!(damage.pages || !damage.tables.is_empty());
        }
        Err(error) => panic!("{error}"),
    }
    assert!(!t0.pages().values().any(|(gpa, access)| {
        assert_eq!(*access, Access::ReadWrite);
        !rig.memory.is_shared(*gpa)
    }));
    true
}

#[cfg(debug_assertions)]
#[test]
fn without_its_mirror_an_accepted_device_loses_the_shared_pages() {
    let mut rig = Rig::realm();
    rig.space.leave_out_mirror();
    let (id, host) = rig.attach(spec(Table::T0));
    rig.convert(gpas(4, 6), Visibility::Shared).unwrap();
    let shared = (BIT / PAGE_SIZE + 4, 2, 4);
    assert_eq!(extents(&host), [shared]);
    rig.space.switch(id, Table::T1).unwrap();
    assert_eq!(extents(&host), [(0, 4, 0), (6, 10, 6), (32, 16, 32)]);
    rig.convert(gpas(8, 9), Visibility::Shared).unwrap();
    rig.space.check().unwrap();
    rig.space.switch(id, Table::T0).unwrap();
    assert_eq!(extents(&host), [shared, (BIT / PAGE_SIZE + 8, 1, 8)]);
}

#[test]
fn where_no_iommu_maps_private_pages_an_accepted_device_reaches_what_it_reached_before() {
    let mut rig = Rig::new(Visibility::Shared, Alias::InPlace);
    rig.space.leave_out_private_pages();
    let (id, t0) = rig.attach(spec(Table::T0));
    let t1 = ModelTable::new(&rig.faults);
    rig.memory.watch(&t1);
    let twin = rig.space.attach_twin(id, t1.handle()).unwrap();
    rig.convert(gpas(4, 6), Visibility::Private).unwrap();
    let reached = [(0, 4, 0), (6, 10, 6), (32, 16, 32)];
    assert_eq!(
        (extents(&t0), extents(&t1)),
        (reached.to_vec(), reached.to_vec())
    );
    rig.space.check().unwrap();
    drop(rig.space.detach(twin));
    rig.space.switch(id, Table::T1).unwrap();
    assert_eq!(extents(&t0), reached);
    rig.convert(gpas(8, 9), Visibility::Private).unwrap();
    rig.convert(gpas(4, 6), Visibility::Shared).unwrap();
    let left = [(0, 4, 0), (4, 2, 4), (6, 2, 6), (9, 7, 9), (32, 16, 32)];
    assert_eq!(extents(&t0), left);
    rig.space.check().unwrap();
    assert_eq!(rig.space.snapshot(id).unwrap().verify(), []);
}
