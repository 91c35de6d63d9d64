//! The calls by which a TD of Intel TDX is made, one after the other, on a kernel that no test machine
//! has.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use iommu::{Gpa, PageRange};
use kvm::ram::{GuestRam, SharedForm};
use kvm::tdx::{Gpaw, Initialized, Measure};
use kvm::x86_64::Cpuid;
use kvm::{Error, Vcpu, Vm, VmKind};
use scripted::{Form, Host, Kernel};
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const FIRMWARE: u64 = 0xffc0_0000;
const HOB: u64 = 0x80_9000;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// A TD of 64 MiB with firmware and two vCPUs.
fn launch(gpaw: Gpaw) -> Result<(Vm, Arc<GuestRam>, Vec<Vcpu>), Error> {
    let ranges = [range(0, 64 * MIB), range(FIRMWARE, 4 * MIB)];
    let vm = Vm::create(VmKind::Td, gpaw.bits())?;
    let supported = Cpuid::supported(&vm)?;
    let initialized = Initialized::new(&vm, gpaw, &supported)?;
    vm.create_local_apics()?;
    let private = ranges.iter().map(|range| vm.guest_memfd(range.bytes()));
    let private = private.collect::<Result<_, _>>()?;
    let ram = Arc::new(GuestRam::with_private(&ranges, private, SharedForm::Anonymous).unwrap());
    vm.add_ram(&ram)?;
    let vcpus = (0..2).map(|index| Vcpu::create_in_td(&vm, index, HOB));
    let vcpus: Vec<Vcpu> = vcpus.collect::<Result<_, _>>()?;
    let memory = ram.memory();
    memory.write_obj(0x11_u8, GuestAddress(FIRMWARE)).unwrap();
    let first = &vcpus[0];
    first.load_td(&ram, range(HOB, 0x2000), Measure::Presence)?;
    first.load_td(&ram, range(FIRMWARE, 5 * MIB / 2), Measure::Content)?;
    initialized.finalize()?;
    Ok((vm, ram, vcpus))
}

const CALLS: [&str; 25] = [
    "kvm GET_API_VERSION",
    "kvm CREATE_VM 0x5",
    "kvm GET_VCPU_MMAP_SIZE",
    "kvm GET_SUPPORTED_CPUID",
    "vm MEMORY_ENCRYPT_OP TDX_CAPABILITIES",
    "vm MEMORY_ENCRYPT_OP TDX_INIT_VM attributes 0x10000000 xfam 0x7 leaves 2 gpaw 48",
    "vm ENABLE_CAP 201 0x1000 0x0 0x0 0x0",
    "vm ENABLE_CAP 121 0x18 0x0 0x0 0x0",
    "vm CREATE_GUEST_MEMFD 0x4000000 0x0",
    "vm CREATE_GUEST_MEMFD 0x400000 0x0",
    "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x0 0x4000000 guest_memfd #0+0x0",
    "vm SET_MEMORY_ATTRIBUTES 0x0 0x4000000 0x8 0x0",
    "vm SET_USER_MEMORY_REGION2 1 flags 4 at 0xffc00000 0x400000 guest_memfd #1+0x0",
    "vm SET_MEMORY_ATTRIBUTES 0xffc00000 0x400000 0x8 0x0",
    "vm CREATE_VCPU 0x0",
    "vcpu0 MEMORY_ENCRYPT_OP TDX_GET_CPUID",
    "vcpu0 SET_CPUID2 leaves 2",
    "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_VCPU rcx 0x809000",
    "vm CREATE_VCPU 0x1",
    "vcpu1 MEMORY_ENCRYPT_OP TDX_GET_CPUID",
    "vcpu1 SET_CPUID2 leaves 2",
    "vcpu1 MEMORY_ENCRYPT_OP TDX_INIT_VCPU rcx 0x809000",
    "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 0 at 0x809000 pages 0x2 from 0x809000",
    "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 1 at 0xffc00000 pages 0x280 from 0xffc00000",
    "vm MEMORY_ENCRYPT_OP TDX_FINALIZE_VM",
];

/// The same where a signal comes after each MiB.
fn calls() -> Vec<String> {
    let mut calls: Vec<String> = CALLS.map(str::to_owned).into();
    for (at, pages) in [(0xffd0_0000_u64, 0x180), (0xffe0_0000, 0x80)] {
        let call = format!(
            "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 1 at {at:#x} pages {pages:#x} from {at:#x}"
        );
        calls.insert(calls.len() - 1, call);
    }
    calls
}

#[test]
fn a_td_is_made_by_sub_commands_in_their_order() {
    let kernel = Kernel::start(Host::new(Form::Tdx));
    let (_vm, _ram, _vcpus) = launch(Gpaw::Bits48).unwrap();
    assert_eq!(kernel.notes(), calls());
    assert_eq!(kernel.private(FIRMWARE), Some(0x11));
    assert_eq!(kernel.private(HOB), Some(0));
    assert_eq!(kernel.private(0), None, "for the guest to accept");
}

#[test]
fn the_other_width_is_asked_for_where_it_is_chosen() {
    let kernel = Kernel::start(Host::new(Form::Tdx));
    let (_vm, _ram, _vcpus) = launch(Gpaw::Bits52).unwrap();
    let notes = kernel.notes();
    assert!(
        notes.iter().any(|note| note.ends_with("gpaw 52")),
        "{notes:#?}"
    );
}

/// By what a call that fails is told.
fn name(call: &str) -> &'static str {
    let names = [
        ("GET_API_VERSION", "API version"),
        ("CREATE_VM", "KVM_CREATE_VM"),
        ("GET_VCPU_MMAP_SIZE", "KVM_CREATE_VM"),
        ("GET_SUPPORTED_CPUID", "KVM_GET_SUPPORTED_CPUID"),
        ("TDX_CAPABILITIES", "KVM_TDX_CAPABILITIES"),
        ("TDX_INIT_VM", "KVM_TDX_INIT_VM"),
        ("TDX_INIT_VCPU", "KVM_TDX_INIT_VCPU"),
        ("TDX_INIT_MEM_REGION", "KVM_TDX_INIT_MEM_REGION"),
        ("TDX_FINALIZE_VM", "KVM_TDX_FINALIZE_VM"),
        ("TDX_GET_CPUID", "KVM_TDX_GET_CPUID"),
        ("ENABLE_CAP", "KVM_ENABLE_CAP"),
        ("CREATE_GUEST_MEMFD", "KVM_CREATE_GUEST_MEMFD"),
        ("SET_USER_MEMORY_REGION2", "KVM_SET_USER_MEMORY_REGION2"),
        ("SET_MEMORY_ATTRIBUTES", "KVM_SET_MEMORY_ATTRIBUTES"),
        ("CREATE_VCPU", "KVM_CREATE_VCPU"),
        ("SET_CPUID2", "KVM_SET_CPUID2"),
    ];
    let mut names = names.into_iter();
    names.find(|(name, _)| call.contains(name)).unwrap().1
}

#[test]
fn each_call_that_fails_ends_the_launch_by_its_name_and_leaves_nothing_open() {
    const EIO: i32 = 5;
    for (index, call) in calls().iter().enumerate() {
        let kernel = Kernel::start(Host::new(Form::Tdx));
        kernel.fail(index + 1, EIO);
        let error = launch(Gpaw::Bits48).map(drop).unwrap_err();
        assert!(error.to_string().contains(name(call)), "{call}: {error}");
        assert_eq!(kernel.notes().len(), index + 1, "nothing after {call}");
        assert_eq!(kernel.open_files(), 0, "after {call}");
    }
}

#[test]
fn what_the_module_says_is_told() {
    const EINVAL: i32 = 22;
    const OPERAND_INVALID: u64 = 0xc000_0100_0000_0001;
    for (index, call) in calls().iter().enumerate() {
        if !call.contains("MEMORY_ENCRYPT_OP") {
            continue;
        }
        let kernel = Kernel::start(Host::new(Form::Tdx));
        kernel.fail_below(index + 1, EINVAL, OPERAND_INVALID);
        let error = launch(Gpaw::Bits48).map(drop).unwrap_err().to_string();
        assert!(error.contains(name(call)), "{call}: {error}");
        assert!(
            error.contains("TDX module says 0xc000010000000001"),
            "{error}"
        );
    }
}

#[test]
fn a_host_without_the_platform_refuses_it_at_once() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let error = launch(Gpaw::Bits48).map(drop).unwrap_err().to_string();
    assert!(error.contains("KVM_CREATE_VM"), "{error}");
    assert_eq!(kernel.notes().len(), 2);
}
