//! The calls by which a software-protected VM is made, one after the other, on a scripted kernel.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use iommu::{Gpa, PageRange, Visibility};
use kvm::ram::{GuestRam, SharedForm};
use kvm::sw_protected::{SwProtectedLack, find};
use kvm::{Error, Vm, VmKind};
use scripted::{Form, Host, Kernel};

const RAM: u64 = 1 << 32;
const MIB: u64 = 1 << 20;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// A VM of two ranges of DRAM, as far as it is no matter of vCPUs.
fn launch() -> Result<(Vm, Arc<GuestRam>), Error> {
    let dram = [range(0, 2 * MIB), range(RAM, 4 * MIB)];
    let vm = Vm::create(VmKind::SwProtected, 48)?;
    vm.hand_on_conversions()?;
    let private = dram.iter().map(|dram| vm.guest_memfd(dram.bytes()));
    let ram = GuestRam::with_private(
        &dram,
        private.collect::<Result<_, _>>()?,
        SharedForm::Anonymous,
    );
    let ram = Arc::new(ram.unwrap());
    vm.add_ram(&ram)?;
    Ok((vm, ram))
}

#[test]
fn all_of_its_memory_starts_shared_and_has_a_private_form() {
    let kernel = Kernel::start(Host::new(Form::SwProtected));
    let (_vm, _ram) = launch().unwrap();
    assert_eq!(
        kernel.notes(),
        [
            "kvm GET_API_VERSION",
            "kvm CREATE_VM 0x1",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm ENABLE_CAP 201 0x1000 0x0 0x0 0x0",
            "vm CREATE_GUEST_MEMFD 0x200000 0x0",
            "vm CREATE_GUEST_MEMFD 0x400000 0x0",
            "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x0 0x200000 guest_memfd #0+0x0",
            "vm SET_USER_MEMORY_REGION2 1 flags 4 at 0x100000000 0x400000 guest_memfd #1+0x0",
        ]
    );
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
    ];
    let kernel = Kernel::start(Host::new(Form::SwProtected));
    drop(launch().unwrap());
    let calls = kernel.notes();
    drop(kernel);
    for (index, call) in calls.iter().enumerate() {
        let kernel = Kernel::start(Host::new(Form::SwProtected));
        kernel.fail(index + 1, EIO);
        let error = launch().map(drop).unwrap_err();
        let mut names = names.iter();
        let expected = names.find(|(name, _)| call.contains(name)).unwrap().1;
        assert!(error.to_string().contains(expected), "{call}: {error}");
        assert_eq!(kernel.notes().len(), index + 1, "nothing after {call}");
        assert_eq!(kernel.open_files(), 0, "after {call}");
    }
}

#[test]
fn a_conversion_changes_the_attribute_and_nothing_else_of_kvm() {
    let kernel = Kernel::start(Host::new(Form::SwProtected));
    let (vm, ram) = launch().unwrap();
    let before = kernel.notes().len();
    let page = range(RAM + MIB, 0x1000);
    vm.set_visibility(page, Visibility::Private).unwrap();
    ram.discard(page, Visibility::Shared).unwrap();
    vm.set_visibility(page, Visibility::Shared).unwrap();
    ram.discard(page, Visibility::Private).unwrap();
    assert_eq!(
        kernel.notes()[before..],
        [
            "vm SET_MEMORY_ATTRIBUTES 0x100100000 0x1000 0x8 0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x100100000 0x1000 0x0 0x0",
        ]
    );
}

#[test]
fn what_a_host_lacks_is_told_by_what_its_kernel_does() {
    let with = |form, change: fn(&mut Host)| {
        let mut host = Host::new(form);
        change(&mut host);
        let kernel = Kernel::start(host);
        let found = find();
        let notes = kernel.notes();
        assert!(
            notes.iter().all(|note| !note.contains("CHECK_EXTENSION")),
            "{notes:?}"
        );
        assert_eq!(kernel.open_files(), 0);
        found
    };
    assert_eq!(with(Form::SwProtected, |_| {}), Ok(()));
    assert_eq!(with(Form::None, |_| {}), Err(SwProtectedLack::VmType));
    let without_files = |host: &mut Host| host.guest_memfd = false;
    assert_eq!(
        with(Form::SwProtected, without_files),
        Err(SwProtectedLack::GuestMemfd)
    );
    let without_states = |host: &mut Host| host.attributes = false;
    assert_eq!(
        with(Form::SwProtected, without_states),
        Err(SwProtectedLack::PageStates)
    );
    let without_calls = |host: &mut Host| host.calls = false;
    assert_eq!(
        with(Form::SwProtected, without_calls),
        Err(SwProtectedLack::Conversions)
    );
}
