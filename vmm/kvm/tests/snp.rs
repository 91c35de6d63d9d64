//! The calls by which a guest of SEV-SNP is made, one after the other, on a kernel that no test machine
//! has.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use iommu::{Gpa, PageRange};
use kvm::ram::{GuestRam, SharedForm};
use kvm::snp::{Content, CpuidPage, Initialized, POLICY};
use kvm::x86_64::{Cpuid, LongMode, Processors};
use kvm::{Error, Vcpu, Vm, VmKind};
use scripted::{Form, Host, Kernel};
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const KERNEL: u64 = 0x100_0000;
const CPUID: u64 = 0xe000;
const SECRETS: u64 = 0xf000;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// A guest of 64 MiB with a kernel and two vCPUs.
fn launch() -> Result<(Vm, Arc<GuestRam>, Vec<Vcpu>), Error> {
    let dram = [range(0, 64 * MIB)];
    let vm = Vm::create(VmKind::Snp, 48)?;
    let initialized = Initialized::new(&vm)?;
    let private = vec![vm.guest_memfd(dram[0].bytes())?];
    let ram = Arc::new(GuestRam::with_private(&dram, private, SharedForm::Anonymous).unwrap());
    vm.add_ram(&ram)?;
    vm.create_irqchip()?;
    let supported = Cpuid::supported(&vm)?;
    let processors = Processors {
        count: 2,
        physical_bits: 48,
    };
    let vcpus = (0..2).map(|index| Vcpu::create(&vm, index, &supported, processors));
    let vcpus: Vec<Vcpu> = vcpus.collect::<Result<_, _>>()?;
    let memory = ram.memory();
    memory.write_obj(0x11_u8, GuestAddress(KERNEL)).unwrap();
    let page = CpuidPage::new(&supported, processors).unwrap();
    memory
        .write_slice(page.bytes(), GuestAddress(CPUID))
        .unwrap();
    let started = initialized.start(POLICY)?;
    started.update(&ram, range(0, CPUID), Content::Zero)?;
    started.update(&ram, range(CPUID, 4096), Content::Cpuid)?;
    started.update(&ram, range(SECRETS, 4096), Content::Secrets)?;
    started.update(&ram, range(KERNEL, 4 * MIB), Content::Copied)?;
    started.update(&ram, range(KERNEL + 4 * MIB, 44 * MIB), Content::Zero)?;
    vcpus[0].enter_long_mode(LongMode {
        entry: KERNEL + 0x200,
        argument: 0x7000,
        page_tables: 0x9000,
        gdt: 0x500,
    })?;
    started.finish()?;
    Ok((vm, ram, vcpus))
}

const CALLS: [&str; 30] = [
    "kvm GET_API_VERSION",
    "kvm CREATE_VM 0x4",
    "kvm GET_VCPU_MMAP_SIZE",
    "vm MEMORY_ENCRYPT_OP SEV_INIT2 features 0x0 ghcb 2",
    "vm ENABLE_CAP 201 0x1000 0x0 0x0 0x0",
    "vm CREATE_GUEST_MEMFD 0x4000000 0x0",
    "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x0 0x4000000 guest_memfd #0+0x0",
    "vm SET_MEMORY_ATTRIBUTES 0x0 0x4000000 0x8 0x0",
    "vm SET_IDENTITY_MAP_ADDR",
    "vm SET_TSS_ADDR",
    "vm CREATE_IRQCHIP",
    "kvm GET_SUPPORTED_CPUID",
    "vm CREATE_VCPU 0x0",
    "vcpu0 SET_CPUID2 leaves 10",
    "vcpu0 SET_MSRS 2",
    "vm CREATE_VCPU 0x1",
    "vcpu1 SET_CPUID2 leaves 10",
    "vcpu1 SET_MSRS 2",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_START policy 0x30000",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x0 0xe000",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 6 at 0xe000 0x1000 from 0xe000",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 5 at 0xf000 0x1000 from 0xf000",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 1 at 0x1000000 0x400000 from 0x1000000",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x1400000 0x2c00000",
    // The kernel has done 16 MiB each time.
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x2400000 0x1c00000",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x3400000 0xc00000",
    "vcpu0 GET_SREGS",
    "vcpu0 SET_SREGS cr0 0x80000011 cr3 0x9000 cr4 0x20 efer 0x500",
    "vcpu0 SET_REGS rip 0x1000200 rsi 0x7000",
    "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_FINISH",
];

#[test]
fn a_guest_is_made_by_sub_commands_in_their_order() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let (_vm, _ram, _vcpus) = launch().unwrap();
    assert_eq!(kernel.notes(), CALLS);
    assert_eq!(kernel.private(KERNEL), Some(0x11));
    assert_eq!(kernel.private(CPUID), Some(10), "leaves of the CPUID page");
    assert_eq!(kernel.private(KERNEL + 4 * MIB), None, "never copied");
}

/// By what a call that fails is told.
fn name(call: &str) -> &'static str {
    let names = [
        ("GET_API_VERSION", "API version"),
        ("CREATE_VM", "KVM_CREATE_VM"),
        ("GET_VCPU_MMAP_SIZE", "KVM_CREATE_VM"),
        ("SEV_INIT2", "KVM_SEV_INIT2"),
        ("SNP_LAUNCH_START", "KVM_SEV_SNP_LAUNCH_START"),
        ("SNP_LAUNCH_UPDATE", "KVM_SEV_SNP_LAUNCH_UPDATE"),
        ("SNP_LAUNCH_FINISH", "KVM_SEV_SNP_LAUNCH_FINISH"),
        ("ENABLE_CAP", "KVM_ENABLE_CAP"),
        ("CREATE_GUEST_MEMFD", "KVM_CREATE_GUEST_MEMFD"),
        ("SET_USER_MEMORY_REGION2", "KVM_SET_USER_MEMORY_REGION2"),
        ("SET_MEMORY_ATTRIBUTES", "KVM_SET_MEMORY_ATTRIBUTES"),
        ("SET_IDENTITY_MAP_ADDR", "KVM_SET_IDENTITY_MAP_ADDR"),
        ("SET_TSS_ADDR", "KVM_SET_TSS_ADDR"),
        ("CREATE_IRQCHIP", "KVM_CREATE_IRQCHIP"),
        ("GET_SUPPORTED_CPUID", "KVM_GET_SUPPORTED_CPUID"),
        ("CREATE_VCPU", "KVM_CREATE_VCPU"),
        ("SET_CPUID2", "KVM_SET_CPUID2"),
        ("SET_MSRS", "KVM_SET_MSRS"),
        ("GET_SREGS", "KVM_GET_SREGS"),
        ("SET_SREGS", "KVM_SET_SREGS"),
        ("SET_REGS", "KVM_SET_REGS"),
    ];
    names
        .into_iter()
        .find(|(name, _)| call.contains(name))
        .unwrap()
        .1
}

#[test]
fn each_call_that_fails_ends_the_launch_by_its_name_and_leaves_nothing_open() {
    const EIO: i32 = 5;
    for (index, call) in CALLS.into_iter().enumerate() {
        let kernel = Kernel::start(Host::new(Form::Snp));
        kernel.fail(index + 1, EIO);
        let error = launch().map(drop).unwrap_err();
        assert!(error.to_string().contains(name(call)), "{call}: {error}");
        assert_eq!(kernel.notes().len(), index + 1, "nothing after {call}");
        assert_eq!(kernel.open_files(), 0, "after {call}");
    }
}

#[test]
fn what_the_security_processor_says_is_told() {
    const EIO: i32 = 5;
    const POLICY_FAILURE: u64 = 0x7;
    for (index, call) in CALLS.into_iter().enumerate() {
        if !call.contains("MEMORY_ENCRYPT_OP") {
            continue;
        }
        let kernel = Kernel::start(Host::new(Form::Snp));
        kernel.fail_below(index + 1, EIO, POLICY_FAILURE);
        let error = launch().map(drop).unwrap_err().to_string();
        assert!(error.contains(name(call)), "{call}: {error}");
        assert!(error.contains("security processor says 0x7"), "{error}");
    }
}

#[test]
fn an_update_that_is_interrupted_is_made_again() {
    const EINTR: i32 = 4;
    const EAGAIN: i32 = 11;
    for errno in [EINTR, EAGAIN] {
        let kernel = Kernel::start(Host::new(Form::Snp));
        let at = CALLS.iter().position(|call| call.contains("type 1 at"));
        kernel.fail(at.unwrap() + 1, errno);
        let (_vm, _ram, _vcpus) = launch().unwrap();
        let notes = kernel.notes();
        assert_eq!(notes[at.unwrap()], notes[at.unwrap() + 1]);
        assert_eq!(notes.len(), CALLS.len() + 1);
        assert_eq!(kernel.private(KERNEL), Some(0x11));
    }
}

#[test]
fn a_host_without_the_platform_refuses_it_at_once() {
    let kernel = Kernel::start(Host::new(Form::None));
    let error = launch().map(drop).unwrap_err().to_string();
    assert!(error.contains("KVM_CREATE_VM"), "{error}");
    assert_eq!(kernel.notes().len(), 2);
}

#[test]
fn a_vm_of_another_kind_is_no_guest() {
    let _kernel = Kernel::start(Host::new(Form::Snp));
    let vm = Vm::create(VmKind::Plain, 48).unwrap();
    assert!(matches!(Initialized::new(&vm), Err(Error::Missing(_))));
}
