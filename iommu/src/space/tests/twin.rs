//! A T1 that is a host table of its own.

use super::*;

/// A Realm with shared pages 0 to 4, a T0 and its twin.
fn accepted() -> (Rig, TableId, TableId, ModelTable, ModelTable) {
    let mut rig = Rig::realm();
    let (first, t0) = rig.attach(spec(Table::T0));
    let t1 = ModelTable::new(&rig.faults);
    rig.memory.watch(&t1);
    let twin = rig.space.attach_twin(first, t1.handle()).unwrap();
    rig.convert(gpas(0, 4), Visibility::Shared).unwrap();
    (rig, first, twin, t0, t1)
}

/// The shared pages of a table, which lie in the upper half.
fn shared(table: &ModelTable) -> Vec<Iova> {
    let pages = table.pages().into_keys();
    pages.filter(|iova| iova.raw() >= BIT).collect()
}

#[test]
fn a_twin_holds_what_its_table_holds_and_the_private_pages() {
    let (mut rig, first, twin, t0, t1) = accepted();
    assert_eq!(shared(&t0), shared(&t1));
    assert_eq!(shared(&t0).len(), 4);
    assert_eq!(t0.pages().len(), 4);
    assert_eq!(t1.pages().len(), 32, "all of DRAM, each page once");
    rig.convert(gpas(1, 2), Visibility::Private).unwrap();
    assert_eq!((t0.pages().len(), t1.pages().len()), (3, 32));
    rig.space.check().unwrap();
    drop(rig.space.detach(twin));
    assert!(t1.pages().is_empty());
    assert_eq!(t0.pages().len(), 3);
    assert!(rig.space.attach_twin(first, t1.handle()).is_ok());
}

#[test]
fn a_twin_follows_every_binding_or_both_stay() {
    let (mut rig, first, _, t0, t1) = accepted();
    rig.space.bind(first, Binding::Blocked).unwrap();
    assert!(t0.pages().is_empty() && t1.pages().is_empty());
    // The first table is filled, and the twin is not: the first is emptied again.
    rig.faults.set([(1, Fault::Refuse)]);
    let refused = rig.space.bind(first, Binding::Identity).unwrap_err();
    assert!(matches!(refused, RedirectError::Refused { table, .. } if table == first));
    assert!(t0.pages().is_empty() && t1.pages().is_empty());
    rig.space.check().unwrap();
    rig.faults.set([]);
    rig.space.bind(first, Binding::Identity).unwrap();
    assert_eq!((t0.pages().len(), t1.pages().len()), (4, 32));
}

#[test]
fn a_twin_that_is_lost_is_reported_as_the_table_that_it_belongs_to() {
    let (mut rig, first, twin, ..) = accepted();
    // Unmapping from T0 succeeds, unmapping from T1 is lost, and T0 is mapped again.
    rig.faults.set([(1, Fault::Lose)]);
    let error = rig.convert(gpas(0, 4), Visibility::Private).unwrap_err();
    let ConvertError::Damaged { damage, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(damage.tables, [first]);
    assert_eq!(rig.space.health(twin), Some(Health::Quarantined));
    assert!(matches!(
        rig.space.bind(first, Binding::Identity),
        Err(RedirectError::Quarantined(id)) if id == twin
    ));
}

#[test]
fn only_a_sound_t0_without_a_twin_gets_one() {
    let (mut rig, first, twin, ..) = accepted();
    for table in [first, twin] {
        let host = ModelTable::new(&rig.faults);
        let refused = rig.space.attach_twin(table, host).unwrap_err();
        assert!(matches!(refused, AttachError::NoTwin(id) if id == table));
    }
}

#[test]
fn a_twin_goes_with_its_table() {
    let (mut rig, first, _, t0, t1) = accepted();
    drop(rig.space.detach(first));
    assert!(t0.pages().is_empty() && t1.pages().is_empty());
    assert_eq!(rig.space.tables().count(), 0);
}

/// A VM whose accepted devices have a bit for shared pages, and whose others have none; with shared pages 0
/// to 4, a T0 and its twin.
fn accepted_by_a_bit(private: bool) -> (Rig, TableId, TableId, ModelTable, ModelTable) {
    let mut rig = Rig::new(Visibility::Private, Alias::InPlace);
    let bit = SharedBit::new(31).unwrap();
    rig.space.name_accepted_by(bit).unwrap();
    if !private {
        rig.space.leave_out_private_pages();
    }
    let (first, t0) = rig.attach(spec(Table::T0));
    let t1 = ModelTable::new(&rig.faults);
    rig.memory.watch(&t1);
    let twin = rig.space.attach_twin(first, t1.handle()).unwrap();
    rig.convert(gpas(0, 4), Visibility::Shared).unwrap();
    (rig, first, twin, t0, t1)
}

const HIGH: u64 = BIT / PAGE_SIZE;

#[test]
fn an_accepted_device_finds_shared_pages_at_a_bit_that_it_did_not_have_before() {
    let (mut rig, first, twin, t0, t1) = accepted_by_a_bit(false);
    assert_eq!(extents(&t0), [(0, 4, 0)]);
    assert_eq!(extents(&t1), [(HIGH, 4, 0)]);
    rig.convert(gpas(1, 2), Visibility::Private).unwrap();
    rig.convert(gpas(32, 33), Visibility::Shared).unwrap();
    assert_eq!(extents(&t0), [(0, 1, 0), (2, 2, 2), (32, 1, 32)]);
    let high = [(HIGH, 1, 0), (HIGH + 2, 2, 2), (HIGH + 32, 1, 32)];
    assert_eq!(extents(&t1), high);
    for table in [first, twin] {
        assert_eq!(rig.space.snapshot(table).unwrap().verify(), []);
    }
}

#[test]
fn private_pages_of_an_accepted_device_keep_their_addresses() {
    let (mut rig, _, twin, t0, t1) = accepted_by_a_bit(true);
    let private = [(4, 12, 4), (32, 16, 32)];
    assert_eq!(extents(&t0), [(0, 4, 0)]);
    assert_eq!(extents(&t1), [&private[..], &[(HIGH, 4, 0)]].concat());
    rig.convert(gpas(0, 4), Visibility::Private).unwrap();
    assert_eq!(extents(&t0), []);
    assert_eq!(t1.pages().len(), 32);
    assert_eq!(shared(&t1), []);
    assert_eq!(rig.space.snapshot(twin).unwrap().verify(), []);
}

#[test]
fn a_table_that_is_accepted_in_place_takes_the_bit_and_gives_it_back() {
    let (mut rig, first, twin, t0, _) = accepted_by_a_bit(false);
    drop(rig.space.detach(twin));
    rig.space.switch(first, Table::T1).unwrap();
    assert_eq!(extents(&t0), [(HIGH, 4, 0)]);
    rig.convert(gpas(0, 1), Visibility::Private).unwrap();
    assert_eq!(extents(&t0), [(HIGH + 1, 3, 1)]);
    rig.space.switch(first, Table::T0).unwrap();
    assert_eq!(extents(&t0), [(1, 3, 1)]);
    rig.space.check().unwrap();
}

#[test]
fn a_device_that_does_not_reach_the_bit_is_not_accepted() {
    let mut rig = Rig::new(Visibility::Shared, Alias::InPlace);
    rig.space
        .name_accepted_by(SharedBit::new(31).unwrap())
        .unwrap();
    let short = TableSpec {
        reach: Iova::new(BIT - 1),
        ..spec(Table::T0)
    };
    let (id, t0) = rig.attach(short);
    let refused = rig.space.switch(id, Table::T1).unwrap_err();
    assert!(
        matches!(refused, RedirectError::Unsuitable { .. }),
        "{refused}"
    );
    assert_eq!(extents(&t0), [(0, 16, 0), (32, 16, 32)], "as before");
    rig.space.check().unwrap();
}

#[test]
fn a_bit_that_dram_reaches_is_no_shared_bit() {
    let mut rig = Rig::new(Visibility::Shared, Alias::InPlace);
    let bit = SharedBit::new(16).unwrap();
    let refused = rig.space.name_accepted_by(bit).unwrap_err();
    assert!(
        matches!(refused, SpaceError::InSharedHalf { .. }),
        "{refused}"
    );
}
