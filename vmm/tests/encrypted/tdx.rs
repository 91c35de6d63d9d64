//! A TD of Intel TDX from its plan to its end.

use iommu::Gpa;
use scripted::{Exit, Form, Host, Kernel};
use tempfile::NamedTempFile;
use vmm::config::spec::{BootSpec, ResourceSpec};
use vmm::launch::Planned;
use vmm::measure::tdx::Mrtd;
use vmm::measure::{Expected, MeasuredOn, Register};
use vmm::plan::{PlanOptions, VmPlan};
use vmm::platform::Platform;
use vmm::run::Ending;

use crate::{MIB, PAGE, boot, bzimage, each_call_fails, file, of_the_vm, only, planned, run};

const PRIVATE: u64 = 1 << 4;
const FIRMWARE: u64 = 0xffff_e000;
const HOB: u64 = 0x80_0000;
const STACK: u64 = 0x81_0000;
const CMDLINE: u64 = 0x90_0000;
const PAYLOAD: u64 = 0x100_0000;

/// Numbers of a section: place and bytes in the file, address, bytes of memory, type, attributes.
type Section = (u32, u32, u64, u64, u32, u32);

/// As td-shim has them.
const SECTIONS: [Section; 6] = [
    (0x1000, 0x1000, 0xffff_f000, 0x1000, 0, 1),
    (0, 0x1000, FIRMWARE, 0x1000, 1, 0),
    (0, 0, HOB, 0x2000, 2, 0),
    (0, 0, STACK, 0x1_0000, 3, 0),
    (0, 0, PAYLOAD, 0x1_0000, 5, 0),
    (0, 0, CMDLINE, 0x1000, 6, 0),
];

/// A TDVF of two pages, as far as a VMM looks.
fn firmware(sections: &[Section]) -> Vec<u8> {
    const FOOTER: [u8; 16] = *b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d";
    const OFFSET: [u8; 16] = *b"\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2";
    let mut metadata = b"TDVF".to_vec();
    let length = 16 + 32 * sections.len();
    for word in [length, 1, sections.len()] {
        metadata.extend(u32::try_from(word).unwrap().to_le_bytes());
    }
    for (from, length, address, memory, kind, attributes) in sections {
        metadata.extend([*from, *length].map(u32::to_le_bytes).concat());
        metadata.extend([*address, *memory].map(u64::to_le_bytes).concat());
        metadata.extend([*kind, *attributes].map(u32::to_le_bytes).concat());
    }
    // An entry of 4 bytes, the footer, and the reset vector.
    let behind = 4 + 18 + 18 + 32;
    let back = u32::try_from(metadata.len() + behind).unwrap();
    let mut image = vec![0xc0; 0x1000];
    image.resize(0x2000 - metadata.len() - behind, 0xcc);
    image.extend(&metadata);
    image.extend(back.to_le_bytes());
    image.extend(22_u16.to_le_bytes());
    image.extend(OFFSET);
    image.extend(40_u16.to_le_bytes());
    image.extend(FOOTER);
    image.extend([0x90; 32]);
    image
}

fn plan(vcpus: u32) -> VmPlan {
    let facts = r#"{"schema":1,"arch":"x86_64",
        "kvm":{"api":12,"phys_bits":46,"platforms":["none","tdx"]}}"#;
    let plan = planned(facts, vcpus, PlanOptions::default());
    assert_eq!(plan.platform(), Platform::Tdx, "`auto` takes it");
    plan
}

struct Files {
    _kernel: NamedTempFile,
    _firmware: NamedTempFile,
    spec: BootSpec,
}

fn files_with(sections: &[Section]) -> Files {
    let (kernel, firmware) = (file(&bzimage()), file(&firmware(sections)));
    Files {
        spec: BootSpec {
            firmware: Some(firmware.path().to_owned()),
            ..boot(kernel.path(), None)
        },
        _kernel: kernel,
        _firmware: firmware,
    }
}

fn files() -> Files {
    files_with(&SECTIONS)
}

#[test]
fn a_td_is_launched_with_two_vcpus() {
    let kernel = Kernel::start(Host::new(Form::Tdx));
    let (ending, report) = run(&kernel, &plan(2), &files().spec, &[]);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(report.exits.other, 0);
    let expected = [
        "kvm CREATE_VM 0x5",
        "kvm GET_VCPU_MMAP_SIZE",
        "kvm GET_SUPPORTED_CPUID",
        "vm MEMORY_ENCRYPT_OP TDX_CAPABILITIES",
        "vm MEMORY_ENCRYPT_OP TDX_INIT_VM attributes 0x10000000 xfam 0x7 leaves 2 gpaw 48",
        "vm ENABLE_CAP 201 0x1000 0x0 0x0 0x0",
        "vm CREATE_GUEST_MEMFD 0x10000000 0x0",
        "vm CREATE_GUEST_MEMFD 0x2000 0x0",
        "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x0 0x10000000 guest_memfd #0+0x0",
        "vm SET_MEMORY_ATTRIBUTES 0x0 0x10000000 0x8 0x0",
        "vm SET_USER_MEMORY_REGION2 1 flags 4 at 0xffffe000 0x2000 guest_memfd #1+0x0",
        "vm SET_MEMORY_ATTRIBUTES 0xffffe000 0x2000 0x8 0x0",
        "vm ENABLE_CAP 121 0x18 0x0 0x0 0x0",
        "kvm GET_SUPPORTED_CPUID",
        "vm CREATE_VCPU 0x0",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_GET_CPUID",
        "vcpu0 SET_CPUID2 leaves 2",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_VCPU rcx 0x800000",
        "vm CREATE_VCPU 0x1",
        "vcpu1 MEMORY_ENCRYPT_OP TDX_GET_CPUID",
        "vcpu1 SET_CPUID2 leaves 2",
        "vcpu1 MEMORY_ENCRYPT_OP TDX_INIT_VCPU rcx 0x800000",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 1 at 0xfffff000 pages 0x1 from 0xfffff000",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 0 at 0xffffe000 pages 0x1 from 0xffffe000",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 0 at 0x800000 pages 0x2 from 0x800000",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 0 at 0x810000 pages 0x10 from 0x810000",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 0 at 0x1000000 pages 0x10 from 0x1000000",
        "vcpu0 MEMORY_ENCRYPT_OP TDX_INIT_MEM_REGION flags 0 at 0x900000 pages 0x1 from 0x900000",
        "vm MEMORY_ENCRYPT_OP TDX_FINALIZE_VM",
        "vcpu0 RUN",
    ];
    assert_eq!(of_the_vm(&kernel), expected);
    assert_eq!(kernel.open_files(), 0);
}

fn bytes(kernel: &Kernel, at: u64, count: u64) -> Vec<u8> {
    let bytes = (at..at + count).map(|at| kernel.private(at).unwrap());
    bytes.collect()
}

#[test]
fn the_td_finds_its_firmware_its_kernel_and_what_both_are_told() {
    let kernel = Kernel::start(Host::new(Form::Tdx));
    run(&kernel, &plan(1), &files().spec, &[]);
    assert_eq!(bytes(&kernel, 0xffff_f000, 2), [0xcc, 0xcc], "code");
    assert_eq!(bytes(&kernel, FIRMWARE, 2), [0xc0, 0xc0], "variables");
    assert_eq!(bytes(&kernel, 0xffff_fff0, 1), [0x90], "reset vector");
    assert_eq!(bytes(&kernel, STACK, 1), [0]);
    assert_eq!(bytes(&kernel, PAYLOAD, 2), *b"MZ", "the file as it is");
    assert_eq!(bytes(&kernel, CMDLINE, 22), *b"console=ttyS0 pci=off\0");
    let word = |at| u64::from_le_bytes(bytes(&kernel, at, 8).try_into().unwrap());
    assert_eq!(word(HOB), 56 << 16 | 1, "the first block");
    let end = word(HOB + 48);
    assert!((HOB..HOB + 0x2000).contains(&end));
    assert_eq!(word(end), 8 << 16 | 0xffff, "the last one");
    // Memory below the first section, to be accepted.
    assert_eq!(word(HOB + 56), 48 << 16 | 3);
    assert_eq!(word(HOB + 56 + 24) & 0xffff_ffff, 7);
    assert_eq!((word(HOB + 56 + 32), word(HOB + 56 + 40)), (0, HOB));
    assert_eq!(kernel.private(0), None, "nobody has accepted it");
}

#[test]
fn the_same_config_is_measured_the_same() {
    let launched = || {
        let kernel = Kernel::start(Host::new(Form::Tdx));
        run(&kernel, &plan(2), &files().spec, &[]);
        (of_the_vm(&kernel), bytes(&kernel, HOB, 0x2000))
    };
    assert_eq!(launched(), launched());
}

#[test]
fn pages_follow_what_the_td_asks_for_and_its_firmware_stays_private() {
    let kernel = Kernel::start(Host::new(Form::Tdx));
    let map = |gpa, pages, attributes| Exit::MapGpaRange {
        gpa,
        pages,
        attributes,
    };
    let exits = [
        map(64 * MIB, 512, 0),
        map(64 * MIB, 1, PRIVATE),
        // Devices, which firmware makes shared; then itself.
        map(0xc000_0000, 0x1000, 0),
        map(FIRMWARE, 1, 0),
        Exit::MemoryFault {
            flags: 0,
            gpa: 80 * MIB,
            size: PAGE,
            completing: false,
        },
    ];
    let (ending, _) = run(&kernel, &plan(1), &files().spec, &exits);
    assert_eq!(ending, Ending::PowerOff);
    let attributes = only(&of_the_vm(&kernel), &["SET_MEMORY_ATTRIBUTES"]);
    assert_eq!(
        attributes[2..],
        [
            "vm SET_MEMORY_ATTRIBUTES 0x4000000 0x200000 0x0 0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x4000000 0x1000 0x8 0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x5000000 0x1000 0x0 0x0",
        ]
    );
    let told: Vec<u64> = kernel.answers().iter().map(|words| words[7]).collect();
    assert_eq!(told, [0, 0, 0, 22]);
}

#[test]
fn calls_that_are_neither_devices_nor_pages_are_answered() {
    const UNSUPPORTED: u64 = 0x8000_0000_0000_0003;
    let kernel = Kernel::start(Host::new(Form::Tdx));
    let exits = [0x1_0000, 0x1_0002, 0x1_0004, u64::MAX].map(Exit::TdCall);
    let (ending, report) = run(&kernel, &plan(1), &files().spec, &exits);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(report.exits.hypercall, 4);
    let answers = kernel.answers();
    assert_eq!(
        answers[0],
        [0, 0x1_0000, 0, 1, 0, 0, 0, 0],
        "no further calls"
    );
    let rest: Vec<u64> = answers[1..].iter().map(|words| words[2]).collect();
    assert_eq!(rest, [UNSUPPORTED; 3]);
}

#[test]
fn an_interrupt_of_the_serial_port_is_a_message() {
    let kernel = Kernel::start(Host::new(Form::Tdx));
    let store = |at: u64, byte| Exit::Store { at, byte };
    // The low half of the entry of input 4; a byte is no access that an IOAPIC takes, and nothing breaks.
    let exits = [store(0xfec0_0000, 0x18), store(0xfec0_0010, 0x31)];
    let (ending, report) = run(&kernel, &plan(1), &files().spec, &exits);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!((report.exits.mmio_write, report.exits.unclaimed), (2, 0));
    let lines = only(&of_the_vm(&kernel), &["IRQ_LINE"]);
    assert!(lines.is_empty(), "KVM has no lines: {lines:?}");
}

#[test]
fn a_td_that_ends_itself_has_crashed() {
    let kernel = Kernel::start(Host::new(Form::Tdx));
    kernel.exit(0, Exit::SystemEvent(7));
    let ended = crate::launch(&plan(1), &files().spec).unwrap().wait();
    assert_eq!(ended.0, Ending::Crash);
}

#[test]
fn each_call_that_fails_is_reported_and_leaves_nothing_open() {
    each_call_fails(|| Host::new(Form::Tdx), &plan(2), &files().spec);
}

/// What is said of files that no TD starts from, before the host is touched.
fn refusal(spec: &BootSpec) -> String {
    let refused = Planned::new(plan(1), spec, ResourceSpec::default()).map(drop);
    refused.unwrap_err()[0].to_string()
}

#[test]
fn files_that_a_td_cannot_start_from_are_refused() {
    let good = files();
    let without = BootSpec {
        firmware: None,
        ..good.spec.clone()
    };
    assert!(refusal(&without).contains("CCVM0418"));
    let initrd = file(&[0; 16]);
    let with_initrd = BootSpec {
        initrd: Some(initrd.path().to_owned()),
        ..good.spec.clone()
    };
    assert!(refusal(&with_initrd).contains("no initial RAM disk"));
    let of_qemu = files_with(&SECTIONS[..4]);
    assert!(refusal(&of_qemu.spec).contains("no place for a kernel"));
    let mut small = SECTIONS;
    small[4].3 = 0x1000;
    assert!(refusal(&files_with(&small).spec).contains("a kernel of 4096 bytes"));
    let mut far = SECTIONS;
    far[3].2 = 1 << 40;
    assert!(refusal(&files_with(&far).spec).contains("has none"));
}

/// The measurement of what was loaded, from what the kernel was asked for and what it then held.
fn measurement_of_calls(kernel: &Kernel) -> String {
    let mut mrtd = Mrtd::default();
    for call in only(&of_the_vm(kernel), &["TDX_INIT_MEM_REGION"]) {
        let words: Vec<&str> = call.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name).unwrap() + 1;
            u64::from_str_radix(words[at].trim_start_matches("0x"), 16).unwrap()
        };
        let (flags, first, pages) = (after("flags"), after("at"), after("pages"));
        for page in (first..first + pages * 4096).step_by(4096) {
            mrtd.page_add(Gpa::new(page));
            if flags & 1 != 0 {
                let content = bytes(kernel, page, 4096);
                mrtd.extend(Gpa::new(page), content.first_chunk().unwrap());
            }
        }
    }
    mrtd.finalize().to_string()
}

#[test]
fn what_is_loaded_is_what_is_foretold() {
    let mut all_but_what_is_told = SECTIONS;
    for section in &mut all_but_what_is_told {
        section.5 = u32::from(section.4 != 2);
    }
    for sections in [SECTIONS, all_but_what_is_told] {
        let kernel = Kernel::start(Host::new(Form::Tdx));
        let files = files_with(&sections);
        run(&kernel, &plan(2), &files.spec, &[]);
        let expected = Expected::of(&plan(2), &files.spec, MeasuredOn::default()).unwrap();
        assert_eq!(expected.register, Register::Mrtd);
        assert_eq!(expected.digest.to_string(), measurement_of_calls(&kernel));
        let starts = expected.segments.iter().map(|one| one.start.raw());
        let with_content = [CMDLINE, PAYLOAD, FIRMWARE, 0xffff_f000];
        let measured = if sections == SECTIONS { 3.. } else { 0.. };
        assert_eq!(starts.collect::<Vec<_>>(), with_content[measured]);
    }
}

#[test]
fn a_firmware_that_has_the_hand_off_blocks_measured_is_not_foretold() {
    let mut sections = SECTIONS;
    sections[2].5 = 1;
    let refused =
        Expected::of(&plan(1), &files_with(&sections).spec, MeasuredOn::default()).unwrap_err();
    assert!(
        refused[0].message.contains("what it is told"),
        "{}",
        refused[0]
    );
}
