//! What a guest's calls and faults bring about, on a scripted kernel.

use iommu::{
    Access, Binding, DmaTable, Gpa, HostError, Iova, PageRange, PageState, Reserved, Table,
    TableSpec,
};
use kvm::{Ipa, Vm, VmKind};
use proptest::prelude::*;
use scripted::{Form, Host, Kernel};
use vm_memory::{Bytes, GuestAddress};

use super::map_gpa_range::{FAILED, INVALID};
use super::*;

const HIGH: u64 = 1 << 32;
const MIB: u64 = 1 << 20;
const PRIVATE: u64 = 0x10;
const SHARED: u64 = 0;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// A table that notes what it is told.
struct Noting;

impl DmaTable for Noting {
    fn map(&mut self, iova: PageRange<Iova>, _: Gpa, _: Access) -> Result<(), HostError> {
        scripted::note(format!("table map {iova}"));
        Ok(())
    }
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        scripted::note(format!("table unmap {iova}"));
        Ok(())
    }
}

struct Rig {
    kernel: Kernel,
    pages: Arc<Pages>,
    conversions: Conversions,
}

impl Rig {
    /// A VM of two ranges of DRAM with a hole between them, and a device's table.
    fn new(table: Table) -> Self {
        let kernel = Kernel::start(Host::new(Form::SwProtected));
        let dram = [range(0, 2 * MIB), range(HIGH, 2 * MIB)];
        let vm = Vm::create(VmKind::SwProtected, 40).unwrap();
        let pages = Arc::new(Pages::in_guest_memfd_with(&dram, None, &vm).unwrap());
        vm.add_ram(pages.ram()).unwrap();
        let spec = TableSpec {
            table,
            binding: Binding::Identity,
            reserved: Reserved::default(),
            reach: Iova::new((1 << 36) - 1),
            entry_limit: None,
        };
        pages.attach(Box::new(Noting), spec).unwrap();
        let conversions = Conversions::new(Arc::clone(&pages));
        Self {
            kernel,
            pages,
            conversions,
        }
    }

    /// What a guest finds after the call, and what was noted meanwhile.
    fn call(&self, arguments: [u64; 3]) -> (i64, Vec<String>) {
        let before = self.kernel.notes().len();
        let [address, pages, attributes] = arguments;
        let arguments = [address, pages, attributes, 0];
        let answer = self.conversions.hypercall(MAP_GPA_RANGE, arguments);
        (answer.unwrap(), self.kernel.notes().split_off(before))
    }

    fn state(&self, at: u64) -> Option<PageState> {
        self.pages.space().states().at(Gpa::new(at))
    }
}

#[test]
fn a_page_leaves_the_table_before_it_is_private_and_comes_back_after_it_is_shared() {
    let rig = Rig::new(Table::T0);
    assert_eq!(rig.state(0), Some(PageState::Shared), "all of it is");
    let memory = rig.pages.ram().memory();
    let at = GuestAddress(HIGH + 0x1000);
    memory.write_obj(0x55_u8, at).unwrap();
    assert_eq!(
        rig.call([HIGH + 0x1000, 2, PRIVATE]),
        (
            0,
            vec![
                "table unmap 0x100000000..0x100200000".to_owned(),
                "table map 0x100000000..0x100001000".to_owned(),
                "table map 0x100003000..0x100200000".to_owned(),
                "vm SET_MEMORY_ATTRIBUTES 0x100001000 0x2000 0x8 0x0".to_owned(),
            ]
        )
    );
    let left: u8 = memory.read_obj(at).unwrap();
    assert_eq!(left, 0, "what was shared is gone");
    assert_eq!(
        rig.call([HIGH + 0x1000, 1, SHARED]),
        (
            0,
            vec![
                "vm SET_MEMORY_ATTRIBUTES 0x100001000 0x1000 0x0 0x0".to_owned(),
                "table map 0x100001000..0x100002000".to_owned(),
            ]
        )
    );
    let again = rig.call([HIGH + 0x1000, 1, SHARED]);
    assert_eq!(again, (0, vec![]), "it is shared already");
}

#[test]
fn an_accepted_device_reaches_shared_pages_only() {
    let rig = Rig::new(Table::T1);
    let (answer, notes) = rig.call([0, 512, PRIVATE]);
    assert_eq!(answer, 0);
    assert_eq!(
        notes,
        [
            "table unmap 0x0..0x200000",
            "vm SET_MEMORY_ATTRIBUTES 0x0 0x200000 0x8 0x0"
        ]
    );
}

#[test]
fn a_call_that_makes_no_sense_changes_nothing() {
    let rig = Rig::new(Table::T0);
    let nonsense = [
        [0x1800, 1, PRIVATE],
        [0x1000, 0, PRIVATE],
        [0x1000, 1, 0x20],
        // It ends beyond memory, begins beyond, or has a hole in it.
        [0x1f_f000, 2, PRIVATE],
        [2 * MIB, 1, PRIVATE],
        [0, (HIGH + 2 * MIB) / 0x1000, PRIVATE],
        [0x1000, u64::MAX, PRIVATE],
        [!0xfff, 1, SHARED],
    ];
    for arguments in nonsense {
        assert_eq!(rig.call(arguments), (INVALID, vec![]), "{arguments:x?}");
    }
    assert_eq!(rig.conversions.hypercall(1, [0; 4]), None);
}

#[test]
fn a_guest_is_told_when_its_host_cannot_follow_and_may_ask_again() {
    const ENOMEM: i32 = 12;
    let rig = Rig::new(Table::T0);
    rig.kernel.fail(2, ENOMEM);
    let (answer, notes) = rig.call([0, 512, PRIVATE]);
    assert_eq!(answer, FAILED);
    assert_eq!(notes.last().unwrap(), "table map 0x0..0x200000");
    assert_eq!(rig.state(0), Some(PageState::Shared));
    assert_eq!(rig.call([0, 512, PRIVATE]).0, 0);
    assert_eq!(rig.state(0), Some(PageState::Private));
}

#[test]
fn a_fault_is_tried_again_once_for_each_change_and_then_the_host_is_at_fault() {
    let rig = Rig::new(Table::T0);
    let fault = Fault {
        at: Ipa::new(0x1000),
        bytes: 0x1000,
        private: false,
    };
    let mut last = LastFault::default();
    rig.conversions.memory_fault(fault, &mut last).unwrap();
    assert_eq!(rig.call([0x1000, 1, PRIVATE]).0, 0);
    rig.conversions.memory_fault(fault, &mut last).unwrap();
    let lost = rig.conversions.memory_fault(fault, &mut last).unwrap_err();
    assert!(lost.to_string().contains("0x1000"), "{lost}");
    assert_eq!(rig.state(0x1000), Some(PageState::Private), "it is no wish");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_guest_asks_for_the_tables_are_right(
        calls in prop::collection::vec((0_u64..0x240, 0_u64..0x240, 0_u64..0x22), 1..40),
    ) {
        let rig = Rig::new(Table::T0);
        for (page, pages, attributes) in calls {
            let (answer, notes) = rig.call([page * 0x1000, pages, attributes]);
            prop_assert!(answer == 0 || answer == INVALID && notes.is_empty());
        }
        prop_assert_eq!(rig.pages.space().check(), Ok(()));
    }
}
