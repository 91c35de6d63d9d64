use iommu::{Access, Binding, DmaTable, Gpa, HostError, Iova, PageRange, Reserved, TableSpec};

use super::*;
use crate::platform::emulated_realm::{RealmMemory, RipasChange};

const DRAM: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;
const BIT: u8 = 32;

/// What the host was told, and which call it refuses.
#[derive(Default)]
struct Host {
    calls: Vec<(&'static str, u64, u64)>,
    fails: Option<&'static str>,
    fails_clean: bool,
}

struct Recorded(Arc<Mutex<Host>>);

impl Recorded {
    fn call(&self, name: &'static str, iova: PageRange<Iova>) -> Result<(), HostError> {
        let mut host = self.0.lock().unwrap();
        host.calls.push((name, iova.start().raw(), iova.bytes()));
        let no = io::Error::other("no");
        match host.fails {
            Some(call) if call == name && host.fails_clean => {
                Err(HostError::without_effect(name, no))
            }
            Some(call) if call == name => Err(HostError::with_unknown_effect(name, no)),
            _ => Ok(()),
        }
    }
}

impl DmaTable for Recorded {
    fn map(&mut self, iova: PageRange<Iova>, _: Gpa, _: Access) -> Result<(), HostError> {
        self.call("map", iova)
    }
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        self.call("unmap", iova)
    }
}

/// A Realm of 4 MiB, the second of them shared, with a device at T0.
struct Bed {
    switch: Switch,
    pages: Arc<Pages>,
    table: TableId,
    host: Arc<Mutex<Host>>,
    cut_off: Arc<Mutex<Vec<TableId>>>,
}

impl Bed {
    fn new() -> Self {
        let dram = PageRange::new(Gpa::new(DRAM), 4 * MIB).unwrap();
        let pages = Arc::new(Pages::with_dram(&[dram], Some(BIT)).unwrap());
        let shared = PageRange::new(Gpa::new(DRAM + MIB), MIB).unwrap();
        pages.set_ripas(shared, RipasChange::Empty);
        let host = Arc::<Mutex<Host>>::default();
        let spec = TableSpec {
            table: Table::T0,
            binding: Binding::Identity,
            reserved: Reserved::default(),
            reach: Iova::new((1 << 33) - 1),
            entry_limit: None,
        };
        let table = pages.attach(Box::new(Recorded(Arc::clone(&host))), spec);
        let table = table.unwrap();
        let cut_off = Arc::<Mutex<Vec<TableId>>>::default();
        let lost = Arc::clone(&cut_off);
        pages.on_quarantine(Box::new(move |tables| lost.lock().unwrap().extend(tables)));
        host.lock().unwrap().calls.clear();
        Self {
            switch: Switch::InPlace {
                pages: Arc::clone(&pages),
                table,
            },
            pages,
            table,
            host,
            cut_off,
        }
    }

    fn calls(&self) -> Vec<(&'static str, u64, u64)> {
        std::mem::take(&mut self.host.lock().unwrap().calls)
    }

    fn fail(&self, call: &'static str, clean: bool) {
        let mut host = self.host.lock().unwrap();
        host.fails = Some(call);
        host.fails_clean = clean;
    }
}

#[test]
fn accepting_adds_private_pages_and_stopping_takes_exactly_those_away() {
    let mut bed = Bed::new();
    bed.switch.put_under(Table::T1).unwrap();
    let private = [(DRAM, MIB), (DRAM + 2 * MIB, 2 * MIB)];
    let called = |name| private.map(|(start, bytes)| (name, start, bytes));
    assert_eq!(bed.calls(), called("map"));
    assert_eq!(bed.pages.space().role(bed.table), Some(Table::T1));
    bed.switch.put_under(Table::T0).unwrap();
    assert_eq!(bed.calls(), called("unmap"));
    bed.pages.space().check().unwrap();
    assert_eq!(*bed.cut_off.lock().unwrap(), []);
}

#[test]
fn an_accept_that_the_host_refuses_leaves_t0_and_the_device_as_they_were() {
    let mut bed = Bed::new();
    bed.fail("map", true);
    let error = bed.switch.put_under(Table::T1).unwrap_err();
    assert!(matches!(error, AcceptanceError::Refused(_)), "{error}");
    assert_eq!(bed.pages.space().role(bed.table), Some(Table::T0));
    assert_eq!(*bed.cut_off.lock().unwrap(), []);
}

#[test]
fn a_device_that_may_have_kept_private_pages_is_cut_off() {
    for clean in [true, false] {
        let mut bed = Bed::new();
        bed.switch.put_under(Table::T1).unwrap();
        bed.fail("unmap", clean);
        let error = bed.switch.put_under(Table::T0).unwrap_err();
        assert!(matches!(error, AcceptanceError::CutOff(_)), "{error}");
        assert_eq!(*bed.cut_off.lock().unwrap(), [bed.table]);
    }
}

#[test]
fn nonces_are_never_the_same() {
    assert_ne!(fresh_nonce().unwrap(), fresh_nonce().unwrap());
}
