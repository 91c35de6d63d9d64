//! A guest of SEV-SNP from its plan to its end.

use igvm::snp_defs::SevVmsa;
use scripted::{Exit, Form, Host, Kernel};
use tempfile::NamedTempFile;
use vmm::boot::segment::SegmentKind;
use vmm::config::spec::{BootSpec, ResourceSpec};
use vmm::launch::Planned;
use vmm::measure::{Expected, MeasuredOn, Register};
use vmm::plan::{PlanOptions, VmPlan};
use vmm::platform::Platform;
use vmm::run::Ending;
use zerocopy::FromZeros as _;

use crate::igvm::{as_every, digest_of_calls, untold};
use crate::{
    INITRD_BYTES, KERNEL, MIB, PAGE, boot, bzimage, each_call_fails, file, of_the_vm, only,
    planned, run,
};

const PRIVATE: u64 = 1 << 4;
/// Where the initial RAM disk is: behind what the kernel takes.
const INITRD: u64 = KERNEL + 4 * MIB;
const C_BIT: u64 = 1 << 51;

pub(crate) fn plan(vcpus: u32) -> VmPlan {
    let facts = r#"{"schema":1,"arch":"x86_64",
        "kvm":{"api":12,"phys_bits":48,"platforms":["none","snp"]}}"#;
    let plan = planned(facts, vcpus, PlanOptions::default());
    assert_eq!(plan.platform(), Platform::Snp, "`auto` takes it");
    plan
}

struct Files {
    _kernel: NamedTempFile,
    _initrd: NamedTempFile,
    spec: BootSpec,
}

fn files() -> Files {
    let (kernel, initrd) = (file(&bzimage()), file(&[0x77; INITRD_BYTES]));
    Files {
        spec: boot(kernel.path(), Some(initrd.path())),
        _kernel: kernel,
        _initrd: initrd,
    }
}

fn map(gpa: u64, pages: u64, attributes: u64) -> Exit {
    Exit::MapGpaRange {
        gpa,
        pages,
        attributes,
    }
}

#[test]
fn a_guest_is_launched_with_two_vcpus() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let files = files();
    let (ending, report) = run(&kernel, &plan(2), &files.spec, &[]);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(report.exits.other, 0);
    let calls = of_the_vm(&kernel);
    assert_eq!(
        calls[..18],
        [
            "kvm CREATE_VM 0x4",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm MEMORY_ENCRYPT_OP SEV_INIT2 features 0x0 ghcb 2",
            "vm ENABLE_CAP 201 0x1000 0x0 0x0 0x0",
            "vm CREATE_GUEST_MEMFD 0x10000000 0x0",
            "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x0 0x10000000 guest_memfd #0+0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x0 0x10000000 0x8 0x0",
            "vm SET_IDENTITY_MAP_ADDR",
            "vm SET_TSS_ADDR",
            "vm CREATE_IRQCHIP",
            "vm SET_TSC_KHZ",
            "kvm GET_SUPPORTED_CPUID",
            "vm CREATE_VCPU 0x0",
            "vcpu0 SET_CPUID2 leaves 10",
            "vcpu0 SET_MSRS 2",
            "vm CREATE_VCPU 0x1",
            "vcpu1 SET_CPUID2 leaves 10",
            "vcpu1 SET_MSRS 2",
        ]
    );
    let launch = only(&calls, &["SNP_", "REGS", " RUN"]);
    assert_eq!(
        launch[..11],
        [
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_START policy 0x30000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 1 at 0x0 0x10000 from 0x0",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 6 at 0x10000 0x1000 from 0x10000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 5 at 0x11000 0x1000 from 0x11000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 1 at 0x12000 0xee000 from 0x12000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x100000 0xf00000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 1 at 0x1000000 0x3000 from 0x1000000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x1003000 0x3fd000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 1 at 0x1400000 0x13000 from 0x1400000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x1413000 0xebed000",
            // The kernel has done 16 MiB.
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 3 at 0x2413000 0xdbed000",
        ]
    );
    assert_eq!(
        launch[launch.len() - 5..],
        [
            "vcpu0 GET_SREGS",
            "vcpu0 SET_SREGS cr0 0x80000011 cr3 0x9000 cr4 0x20 efer 0x500",
            "vcpu0 SET_REGS rip 0x1000200 rsi 0x7000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_FINISH",
            "vcpu0 RUN",
        ]
    );
    assert_eq!(kernel.open_files(), 0);
}

/// The eight bytes that the guest finds at `at`.
fn word(kernel: &Kernel, at: u64) -> u64 {
    let bytes = (0..8).map(|offset| kernel.private(at + offset).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    u64::from_le_bytes(bytes.try_into().unwrap())
}

#[test]
fn the_guest_finds_its_kernel_and_what_it_needs_to_encrypt() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    run(&kernel, &plan(1), &files().spec, &[]);
    assert_eq!(kernel.private(KERNEL), Some(0x1f));
    assert_eq!(kernel.private(INITRD), Some(0x77));
    assert_eq!(kernel.private(INITRD + INITRD_BYTES as u64), Some(0));
    assert_eq!(
        kernel.private(KERNEL + 2 * MIB),
        None,
        "zeros of the firmware"
    );
    // Page tables: each entry says encrypted.
    assert_eq!(word(&kernel, 0x9000), 0xa000 | 3 | C_BIT);
    assert_eq!(word(&kernel, 0xb000), 0x83 | C_BIT);
    assert_eq!(word(&kernel, 0xe000 + 511 * 8), 0xffe0_0083 | C_BIT);
    // The one `setup_data`: type, length, address of the CC blob.
    assert_eq!(word(&kernel, 0x7000 + 0x250), 0x8000);
    assert_eq!(word(&kernel, 0x8000), 0);
    assert_eq!(word(&kernel, 0x8008), 7 | 4 << 32);
    assert_eq!(word(&kernel, 0x8010), 0x1_2000);
    let blob: Vec<u64> = (0..5).map(|at| word(&kernel, 0x1_2000 + at * 8)).collect();
    assert_eq!(blob, [0x4544_4d41, 0x1_1000, PAGE, 0x1_0000, PAGE]);
    assert_eq!(word(&kernel, 0x1_0000), 10, "leaves");
    // No page of these is usable memory: the second entry of the E820 map.
    assert_eq!(word(&kernel, 0x7000 + 0x2d0 + 20), 0x1_0000);
    assert_eq!(word(&kernel, 0x7000 + 0x2d0 + 28), 0x3000);
}

#[test]
fn the_same_config_is_measured_the_same() {
    let launched = || {
        let kernel = Kernel::start(Host::new(Form::Snp));
        run(&kernel, &plan(2), &files().spec, &[]);
        let low: Vec<_> = (0..MIB).step_by(8).map(|at| kernel.private(at)).collect();
        (of_the_vm(&kernel), low)
    };
    assert_eq!(launched(), launched(), "no random number goes into it");
}

/// The first processor, by what KVM is told of it and what it has of its own.
fn entered() -> Box<SevVmsa> {
    let mut vmsa = SevVmsa::new_box_zeroed().unwrap();
    for data in [
        &mut vmsa.es,
        &mut vmsa.ss,
        &mut vmsa.ds,
        &mut vmsa.fs,
        &mut vmsa.gs,
    ] {
        (data.selector, data.attrib, data.limit) = (0x18, 0xc93, u32::MAX);
    }
    (vmsa.cs.selector, vmsa.cs.attrib, vmsa.cs.limit) = (0x10, 0xa9b, u32::MAX);
    (vmsa.ldtr.attrib, vmsa.ldtr.limit) = (0x82, 0xffff);
    (vmsa.tr.attrib, vmsa.tr.limit) = (0x8b, 0x67);
    (vmsa.gdtr.base, vmsa.gdtr.limit, vmsa.idtr.limit) = (0x500, 31, 0xffff);
    vmsa.efer = 0x1500;
    (vmsa.cr0, vmsa.cr3, vmsa.cr4) = (0x8000_0011, 0x9000, 0x60);
    (vmsa.rip, vmsa.rsi) = (KERNEL + 0x200, 0x7000);
    as_every(&mut vmsa);
    vmsa
}

#[test]
fn what_is_loaded_is_what_is_foretold() {
    for vcpus in [1, 2] {
        let kernel = Kernel::start(Host::new(Form::Snp));
        let files = files();
        run(&kernel, &plan(vcpus), &files.spec, &[]);
        let expected = Expected::of(&plan(vcpus), &files.spec, MeasuredOn::default()).unwrap();
        assert_eq!(expected.register, Register::SnpLaunchDigest);
        let processors = [entered(), untold()];
        let made = digest_of_calls(&kernel, &processors[..vcpus as usize]);
        assert_eq!(expected.digest.to_string(), made, "{vcpus} processors");
        let segments = expected.segments.iter();
        let segments: Vec<_> = segments
            .map(|one| (one.kind, one.start.raw(), one.bytes))
            .collect();
        assert_eq!(
            segments,
            [
                (SegmentKind::BootData, 0, MIB),
                (SegmentKind::Kernel, KERNEL, 0x3000),
                (SegmentKind::Initrd, INITRD, INITRD_BYTES as u64),
            ]
        );
    }
}

#[test]
fn what_a_guest_is_made_of_changes_its_measurement() {
    let files = files();
    let digest = |plan: &VmPlan, spec: &BootSpec, encryption_bit| {
        let host = MeasuredOn {
            encryption_bit,
            ..MeasuredOn::default()
        };
        Expected::of(plan, spec, host).unwrap().digest.to_string()
    };
    let (other_kernel, other_initrd) = (
        file(&[bzimage(), vec![1]].concat()),
        file(&[0x78; INITRD_BYTES]),
    );
    let with = |change: &dyn Fn(&mut BootSpec)| {
        let mut spec = files.spec.clone();
        change(&mut spec);
        spec
    };
    let mut digests = vec![
        digest(&plan(1), &files.spec, 51),
        digest(&plan(2), &files.spec, 51),
        digest(&plan(1), &files.spec, 47),
    ];
    for spec in [
        with(&|spec| spec.kernel = other_kernel.path().to_owned()),
        with(&|spec| spec.initrd = Some(other_initrd.path().to_owned())),
        with(&|spec| spec.initrd = None),
        with(&|spec| spec.cmdline.push('x')),
    ] {
        digests.push(digest(&plan(1), &spec, 51));
    }
    let all = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), all);
    assert_eq!(
        digest(&plan(1), &files.spec, 51),
        digest(&plan(1), &files.spec, 51)
    );
}

#[test]
fn pages_follow_what_the_guest_asks_for() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let exits = [
        map(64 * MIB, 512, 0),
        map(64 * MIB, 1, PRIVATE),
        // By an access, instead of a call.
        Exit::MemoryFault {
            flags: 8,
            gpa: 65 * MIB,
            size: PAGE,
            completing: false,
        },
        // As they are already; no pages; beyond memory.
        map(64 * MIB, 1, PRIVATE),
        map(64 * MIB + 1, 1, PRIVATE),
        map(255 * MIB, 512, 0),
        map(!0xfff, 2, PRIVATE),
        // Devices are shared for good, and never private.
        map(0xfec0_0000, 1, 0),
        map(0xfec0_0000, 1, PRIVATE),
    ];
    let (ending, report) = run(&kernel, &plan(1), &files().spec, &exits);
    assert_eq!(ending, Ending::PowerOff);
    let attributes = only(&of_the_vm(&kernel), &["SET_MEMORY_ATTRIBUTES"]);
    assert_eq!(
        attributes[1..],
        [
            "vm SET_MEMORY_ATTRIBUTES 0x4000000 0x200000 0x0 0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x4000000 0x1000 0x8 0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x4100000 0x1000 0x8 0x0",
        ]
    );
    const EINVAL: u64 = 22;
    let told: Vec<u64> = kernel.answers().iter().map(|words| words[7]).collect();
    assert_eq!(told, [0, 0, 0, EINVAL, EINVAL, EINVAL, 0, EINVAL]);
    let conversions = report.conversions.unwrap();
    assert_eq!(
        (conversions.shared_pages, conversions.private_pages),
        (512, 2)
    );
    assert_eq!((report.exits.hypercall, report.exits.memory_fault), (8, 1));
}

#[test]
fn a_guest_that_insists_on_private_memory_where_none_is_comes_to_its_end() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let fault = Exit::MemoryFault {
        flags: 8,
        gpa: 0xd000_0000,
        size: PAGE,
        completing: false,
    };
    let (ending, _) = run(&kernel, &plan(1), &files().spec, &[fault, fault]);
    let Ending::Failed(why) = ending else {
        panic!("{ending:?}");
    };
    assert!(why.contains("0xd0000000"), "{why}");
}

#[test]
fn a_page_that_the_host_cannot_give_ends_the_run_and_does_not_spin() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let fault = Exit::MemoryFault {
        flags: 8,
        gpa: 64 * MIB,
        size: PAGE,
        completing: false,
    };
    // It is private already; a conversion of another page in between is a reason to try again.
    let exits = [fault, map(32 * MIB, 1, 0), fault, fault];
    let (ending, report) = run(&kernel, &plan(1), &files().spec, &exits);
    assert!(matches!(ending, Ending::Failed(_)), "{ending:?}");
    assert_eq!(report.exits.memory_fault, 3);
}

#[test]
fn a_conversion_that_the_host_refuses_is_told_the_guest() {
    const ENOMEM: i32 = 12;
    const EFAULT: u64 = 14;
    let files = files();
    let kernel = Kernel::start(Host::new(Form::Snp));
    run(&kernel, &plan(1), &files.spec, &[]);
    let calls = kernel.notes().len();
    drop(kernel);
    let kernel = Kernel::start(Host::new(Form::Snp));
    // The same calls, then the attributes of the page.
    kernel.fail(calls + 1, ENOMEM);
    let (ending, _) = run(&kernel, &plan(1), &files.spec, &[map(KERNEL, 1, 0)]);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(kernel.answers()[0][7], EFAULT);
    assert_eq!(kernel.private(KERNEL), Some(0x1f), "still private");
}

#[test]
fn each_call_that_fails_is_reported_and_leaves_nothing_open() {
    each_call_fails(|| Host::new(Form::Snp), &plan(2), &files().spec);
}

#[test]
fn a_host_that_has_lost_the_platform_says_so() {
    let kernel = Kernel::start(Host::new(Form::None));
    let error = crate::launch(&plan(1), &files().spec)
        .map(drop)
        .unwrap_err();
    let finding = error.diagnose().message;
    assert!(finding.contains("SNP guest"), "{finding}");
    assert_eq!(kernel.open_files(), 0);
}

#[test]
fn a_vmlinux_is_refused_before_the_host_is_touched() {
    let kernel = file(&vmlinux());
    let spec = boot(kernel.path(), None);
    let refused = Planned::new(plan(1), &spec, ResourceSpec::default()).map(drop);
    let findings = refused.unwrap_err();
    assert!(
        findings[0].message.contains("32-bit mode"),
        "{}",
        findings[0]
    );
}

/// An ELF file with a PVH entry, as far as its loader looks.
fn vmlinux() -> Vec<u8> {
    let mut elf = vec![0; 0x1000];
    elf[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
    elf[20] = 1;
    elf[32] = 64;
    elf[52] = 64;
    elf[54] = 56;
    elf[56] = 2;
    // A segment, and a note: owner Xen, type 18, the entry.
    let mut header = |at: usize, kind: u32, offset: u64, address: u64, bytes: u64| {
        elf[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        elf[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        elf[at + 16..at + 24].copy_from_slice(&address.to_le_bytes());
        elf[at + 24..at + 32].copy_from_slice(&address.to_le_bytes());
        elf[at + 32..at + 40].copy_from_slice(&bytes.to_le_bytes());
        elf[at + 40..at + 48].copy_from_slice(&bytes.to_le_bytes());
        elf[at + 48..at + 56].copy_from_slice(&4_u64.to_le_bytes());
    };
    header(64, 1, 0x400, KERNEL, 0x400);
    header(64 + 56, 4, 0x200, 0, 24);
    elf[0x200..0x218].copy_from_slice(b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0\0\0\0\x01\0\0\0\0");
    elf
}
