//! The calls by which a Realm is made, one after the other, on kernels that no test machine has.
//!
//! What is expected is the order in which two small VMMs made them on a host with a real RMM, one for
//! each form of the interface.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use iommu::{Gpa, PageRange, Visibility};
use kvm::cca::{Configured, RealmAbi, RealmHash, RealmLack, RealmParameters, find};
use kvm::ram::{GuestRam, SharedForm};
use kvm::{Error, Vm, VmKind};
use scripted::{Form, Host, Kernel};
use vm_memory::{Bytes, GuestAddress};

const RAM: u64 = 0x8000_0000;
const MIB: u64 = 1 << 20;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

fn parameters(personalization: Option<[u8; 64]>) -> RealmParameters {
    RealmParameters {
        hash: RealmHash::Sha256,
        personalization,
    }
}

/// A Realm of 512 MiB at 2 GiB with content at two places, as far as it is no matter of vCPUs.
fn launch(abi: RealmAbi, parameters: RealmParameters) -> Result<(Vm, Arc<GuestRam>), Error> {
    let dram = [range(RAM, 512 * MIB)];
    let vm = Vm::create(VmKind::Realm(abi), 40)?;
    let configured = Configured::new(&vm, &parameters)?;
    let private = vec![vm.guest_memfd(dram[0].bytes())?];
    let ram = Arc::new(GuestRam::with_private(&dram, private, SharedForm::SmallPages).unwrap());
    vm.add_ram(&ram)?;
    let unmeasured = configured.build(&dram)?;
    let memory = ram.memory();
    memory.write_obj(0x11_u8, GuestAddress(RAM)).unwrap();
    memory
        .write_obj(0x22_u8, GuestAddress(RAM + 0xf00_1000))
        .unwrap();
    unmeasured.populate(&ram, range(RAM, 5 * MIB / 2))?;
    unmeasured.populate(&ram, range(RAM + 0xf00_0000, 0x1_0000))?;
    unmeasured.activate()?;
    Ok((vm, ram))
}

#[test]
fn a_realm_of_the_first_form_is_made_by_sub_commands() {
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    let mut personalization = [0; 64];
    personalization[..7].copy_from_slice(b"testrpv");
    let launched = launch(RealmAbi::EnableCap, parameters(Some(personalization)));
    let (_vm, _ram) = launched.unwrap();
    assert_eq!(
        kernel.notes(),
        [
            "kvm GET_API_VERSION",
            "kvm CREATE_VM 0x128",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm ENABLE_CAP 300 configure 0x1",
            "vm ENABLE_CAP 300 configure 0x0 0x74736574 0x767072",
            "vm CREATE_GUEST_MEMFD 0x20000000 0x0",
            "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x80000000 0x20000000 guest_memfd #0+0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x80000000 0x20000000 0x8 0x0",
            "vm ENABLE_CAP 300 create",
            "vm ENABLE_CAP 300 init-ripas 0x80000000 0x20000000",
            "vm ENABLE_CAP 300 populate 0x80000000 0x280000 0x1",
            "vm ENABLE_CAP 300 populate 0x8f000000 0x10000 0x1",
            "vm ENABLE_CAP 300 activate",
        ]
    );
    assert_eq!(kernel.private(RAM), Some(0x11));
    assert_eq!(kernel.private(RAM + 0xf00_1000), Some(0x22));
}

#[test]
fn a_realm_of_the_second_form_is_made_by_populating_it() {
    let kernel = Kernel::start(Host::new(Form::Populate));
    let (_vm, _ram) = launch(RealmAbi::Populate, parameters(None)).unwrap();
    assert_eq!(
        kernel.notes(),
        [
            "kvm GET_API_VERSION",
            "kvm CREATE_VM 0x40000028",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm CREATE_GUEST_MEMFD 0x20000000 0x0",
            "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x80000000 0x20000000 guest_memfd #0+0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x80000000 0x20000000 0x8 0x0",
            "vm ARM_RMI_POPULATE 0x80000000 0x280000 0x1 from 0x80000000",
            "vm ARM_RMI_POPULATE 0x80100000 0x180000 0x1 from 0x80100000",
            "vm ARM_RMI_POPULATE 0x80200000 0x80000 0x1 from 0x80200000",
            "vm ARM_RMI_POPULATE 0x8f000000 0x10000 0x1 from 0x8f000000",
        ]
    );
    assert_eq!(kernel.private(RAM), Some(0x11));
    assert_eq!(kernel.private(RAM + 0xf00_1000), Some(0x22));
}

#[test]
fn a_realm_whose_state_is_in_its_file_is_made_without_a_word_of_it() {
    let kernel = Kernel::start(Host::new(Form::PrivateFiles));
    let (vm, ram) = launch(RealmAbi::PrivateFiles, parameters(None)).unwrap();
    assert_eq!(
        kernel.notes(),
        [
            "kvm GET_API_VERSION",
            "kvm CREATE_VM 0x40000028",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm CREATE_GUEST_MEMFD 0x20000000 0x0",
            "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x80000000 0x20000000 guest_memfd #0+0x0",
            "vm ARM_RMI_POPULATE 0x80000000 0x280000 0x1 from 0x80000000",
            "vm ARM_RMI_POPULATE 0x80100000 0x180000 0x1 from 0x80100000",
            "vm ARM_RMI_POPULATE 0x80200000 0x80000 0x1 from 0x80200000",
            "vm ARM_RMI_POPULATE 0x8f000000 0x10000 0x1 from 0x8f000000",
        ]
    );
    assert_eq!(kernel.private(RAM), Some(0x11));
    let before = kernel.notes().len();
    let page = range(RAM, 0x1000);
    vm.set_visibility(page, Visibility::Shared).unwrap();
    ram.discard(page, Visibility::Private).unwrap();
    assert_eq!(kernel.private(RAM), None, "the page is a hole");
    vm.set_visibility(page, Visibility::Private).unwrap();
    ram.discard(page, Visibility::Shared).unwrap();
    assert_eq!(kernel.notes().len(), before, "the file stays private");
}

#[test]
fn each_call_that_fails_ends_the_launch_by_its_name_and_leaves_nothing_open() {
    const EIO: i32 = 5;
    let names = [
        ("GET_API_VERSION", "API version"),
        ("CREATE_VM", "KVM_CREATE_VM"),
        ("GET_VCPU_MMAP_SIZE", "KVM_CREATE_VM"),
        ("ENABLE_CAP", "KVM_ENABLE_CAP"),
        ("CREATE_GUEST_MEMFD", "KVM_CREATE_GUEST_MEMFD"),
        ("SET_USER_MEMORY_REGION2", "KVM_SET_USER_MEMORY_REGION2"),
        ("SET_MEMORY_ATTRIBUTES", "KVM_SET_MEMORY_ATTRIBUTES"),
        ("ARM_RMI_POPULATE", "KVM_ARM_RMI_POPULATE"),
    ];
    for (form, abi) in [
        (Form::EnableCap, RealmAbi::EnableCap),
        (Form::EarlyPopulate, RealmAbi::EarlyPopulate),
        (Form::Populate, RealmAbi::Populate),
        (Form::PrivateFiles, RealmAbi::PrivateFiles),
    ] {
        let kernel = Kernel::start(Host::new(form));
        drop(launch(abi, parameters(None)).unwrap());
        let calls = kernel.notes();
        drop(kernel);
        for (index, call) in calls.iter().enumerate() {
            let kernel = Kernel::start(Host::new(form));
            kernel.fail(index + 1, EIO);
            let error = launch(abi, parameters(None)).map(drop).unwrap_err();
            let expected = names
                .iter()
                .find(|(name, _)| call.contains(name))
                .unwrap()
                .1;
            assert!(error.to_string().contains(expected), "{call}: {error}");
            assert_eq!(kernel.notes().len(), index + 1, "nothing after {call}");
            assert_eq!(kernel.open_files(), 0, "after {call}");
        }
    }
}

#[test]
fn a_signal_during_populate_loses_nothing() {
    let kernel = Kernel::start(Host::new(Form::Populate));
    const EINTR: i32 = 4;
    kernel.fail(8, EINTR);
    let (_vm, _ram) = launch(RealmAbi::Populate, parameters(None)).unwrap();
    let notes = kernel.notes();
    assert_eq!(notes[7], notes[8]);
    assert_eq!(notes.len(), 11);
    assert_eq!(kernel.private(RAM + 0xf00_1000), Some(0x22));
}

#[test]
fn a_parameter_that_the_interface_cannot_set_is_refused() {
    let kernel = Kernel::start(Host::new(Form::Populate));
    let error = launch(RealmAbi::Populate, parameters(Some([7; 64])));
    assert!(
        error
            .map(drop)
            .unwrap_err()
            .to_string()
            .contains("personalization")
    );
    let longer = RealmParameters {
        hash: RealmHash::Sha512,
        personalization: None,
    };
    let error = launch(RealmAbi::Populate, longer).map(drop).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert_eq!(kernel.notes().len(), 6, "two VMs, and nothing with them");
}

#[test]
fn a_conversion_changes_the_attribute_and_frees_the_old_form() {
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    let (vm, ram) = launch(RealmAbi::EnableCap, parameters(None)).unwrap();
    let before = kernel.notes().len();
    let page = range(RAM + 0xf00_1000, 0x1000);
    vm.set_visibility(page, Visibility::Shared).unwrap();
    ram.discard(page, Visibility::Private).unwrap();
    assert_eq!(kernel.private(RAM + 0xf00_1000), None, "the page is a hole");
    assert_eq!(kernel.private(RAM), Some(0x11));
    vm.set_visibility(page, Visibility::Private).unwrap();
    assert_eq!(
        kernel.notes()[before..],
        [
            "vm SET_MEMORY_ATTRIBUTES 0x8f001000 0x1000 0x0 0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x8f001000 0x1000 0x8 0x0",
        ]
    );
}

#[test]
fn the_form_of_the_interface_is_told_by_what_the_kernel_does() {
    let with = |form, change: fn(&mut Host)| {
        let mut host = Host::new(form);
        change(&mut host);
        let _kernel = Kernel::start(host);
        find(40)
    };
    let as_it_is = |_: &mut Host| {};
    let without_rmm = |host: &mut Host| host.rmm = false;
    let stateless = |host: &mut Host| host.attributes = false;
    let types_only = |host: &mut Host| host.calls = false;
    for (form, abi, without) in [
        (Form::EnableCap, RealmAbi::EnableCap, RealmLack::Rmm),
        // No word of the RMM: its absence makes the type unknown.
        (
            Form::EarlyPopulate,
            RealmAbi::EarlyPopulate,
            RealmLack::VmType,
        ),
        (Form::Populate, RealmAbi::Populate, RealmLack::VmType),
        (
            Form::PrivateFiles,
            RealmAbi::PrivateFiles,
            RealmLack::VmType,
        ),
    ] {
        assert_eq!(with(form, as_it_is), Ok(abi));
        assert_eq!(with(form, without_rmm), Err(without));
        assert_eq!(with(form, stateless), Err(RealmLack::PageStates));
        assert_eq!(with(form, types_only), Err(RealmLack::Form), "{form:?}");
    }
    assert_eq!(with(Form::None, as_it_is), Err(RealmLack::VmType));
}

#[test]
fn a_kernel_whose_shared_pages_are_in_the_file_is_told_from_series_v15() {
    let mut host = Host::new(Form::PrivateFiles);
    host.in_place = true;
    let kernel = Kernel::start(host);
    assert_eq!(find(40), Err(RealmLack::InPlace));
    assert_eq!(kernel.open_files(), 0);
    // What tells the two is the last call: what an ordinary VM says of a file that nobody can map.
    let tried = |kernel: &Kernel| {
        let notes = kernel.notes();
        let plain = notes.iter().rposition(|note| note.contains("CREATE_VM"));
        // Whose type on arm64 has the width, and on x86-64 has nothing.
        notes[plain.unwrap() + 1..].to_vec()
    };
    let expected = [
        "kvm GET_VCPU_MMAP_SIZE",
        "vm CREATE_GUEST_MEMFD 0x10000 0x0",
        "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x80000000 0x10000 guest_memfd #0+0x0",
    ];
    assert_eq!(tried(&kernel)[..3], expected);
    drop(kernel);
    let kernel = Kernel::start(Host::new(Form::PrivateFiles));
    assert_eq!(find(40), Ok(RealmAbi::PrivateFiles));
    assert_eq!(tried(&kernel), expected);
    assert_eq!(kernel.open_files(), 0);
}

#[test]
fn a_form_that_cannot_be_found_out_is_not_taken_for_series_v15() {
    const EIO: i32 = 5;
    let kernel = Kernel::start(Host::new(Form::PrivateFiles));
    find(40).unwrap();
    let calls = kernel.notes();
    drop(kernel);
    let state = calls.iter().position(|call| call.contains("ATTRIBUTES2"));
    let from = state.unwrap();
    for (index, call) in calls.iter().enumerate().skip(from) {
        let kernel = Kernel::start(Host::new(Form::PrivateFiles));
        kernel.fail(index + 1, EIO);
        let expected = match index - from {
            0 => RealmLack::PageStates,
            1 => RealmLack::Form,
            _ => RealmLack::InPlace,
        };
        assert_eq!(find(40), Err(expected), "{call}");
        assert_eq!(kernel.open_files(), 0);
    }
}

#[test]
fn a_width_is_told_from_a_type_that_the_kernel_does_not_know() {
    for form in [
        Form::EnableCap,
        Form::EarlyPopulate,
        Form::Populate,
        Form::PrivateFiles,
    ] {
        let mut host = Host::new(form);
        host.realm_bits = 42;
        let _kernel = Kernel::start(host);
        assert!(find(42).is_ok());
        assert_eq!(find(44), Err(RealmLack::Width(44)));
    }
    let _kernel = Kernel::start(Host::new(Form::None));
    assert_eq!(find(44), Err(RealmLack::VmType));
}

#[test]
fn looking_for_realms_leaves_nothing_behind() {
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    find(40).unwrap();
    let notes = kernel.notes();
    assert!(
        notes.iter().all(|note| !note.contains("CHECK_EXTENSION")),
        "{notes:?}"
    );
    assert!(
        notes.iter().all(|note| !note.contains("create")),
        "{notes:?}"
    );
    assert_eq!(kernel.open_files(), 0);
}
