//! A Realm from its plan to its end, on kernels with either form of the interface that no test machine
//! has: every call that `ccvm run` makes, in order.

use scripted::{Exit, Form, Host, Kernel};
use vmm::plan::{Board, VmPlan};
use vmm::platform::Platform;
use vmm::run::Ending;
use vmm::stats::Report;

use crate::{INITRD_BYTES, MIB, RAM, launch, of_the_vm, planned};

const PRIVATE: u64 = 8;
const PAGE: u64 = 4096;
const FORMS: [Form; 4] = [
    Form::EnableCap,
    Form::EarlyPopulate,
    Form::Populate,
    Form::PrivateFiles,
];

fn plan(vcpus: u32, override_ipa_bits: Option<u8>) -> VmPlan {
    let facts = r#"{"schema":1,"arch":"aarch64",
        "kvm":{"api":12,"ipa_bits_max":48,"platforms":["none","emulated-realm","cca"]}}"#;
    let plan = planned(facts, vcpus, override_ipa_bits);
    assert_eq!(plan.platform(), Platform::Cca, "`auto` takes a Realm");
    plan
}

/// Runs a Realm whose first vCPU does this, and then turns it off.
fn run(kernel: &Kernel, plan: &VmPlan, exits: &[Exit]) -> (Ending, Report) {
    const SHUTDOWN: u32 = 1;
    for exit in exits {
        kernel.exit(0, *exit);
    }
    kernel.exit(0, Exit::SystemEvent(SHUTDOWN));
    launch(plan).unwrap().wait()
}

fn wish(to: u64, gpa: u64, size: u64) -> Exit {
    Exit::MemoryFault {
        flags: to,
        gpa,
        size,
        completing: false,
    }
}

#[test]
fn a_realm_of_the_first_form_runs_with_two_vcpus() {
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    let plan = plan(2, Some(40));
    let (ending, report) = run(&kernel, &plan, &[]);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(report.exits.other, 0);
    assert_eq!(
        of_the_vm(&kernel),
        [
            "kvm CREATE_VM 0x128",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm ENABLE_CAP 300 configure 0x1",
            "vm CREATE_GUEST_MEMFD 0x10000000 0x0",
            "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x40000000 0x10000000 guest_memfd #0+0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x40000000 0x10000000 0x8 0x0",
            "vm CREATE_DEVICE type 7 flags 0",
            "device SET_DEVICE_ATTR 0.2 0x1100000",
            "device SET_DEVICE_ATTR 0.3 0x1130000",
            "vm CREATE_DEVICE type 8 flags 0",
            "device SET_DEVICE_ATTR 0.4 0x1110000",
            "vm CREATE_VCPU 0x0",
            "vm ARM_PREFERRED_TARGET",
            "vcpu0 ARM_VCPU_INIT target 5 features 0x104",
            "vm CREATE_VCPU 0x1",
            "vm ARM_PREFERRED_TARGET",
            "vcpu1 ARM_VCPU_INIT target 5 features 0x105",
            "device SET_DEVICE_ATTR 3.0 64",
            "device SET_DEVICE_ATTR 4.0",
            "device SET_DEVICE_ATTR 4.0",
            "vcpu0 GET_ONE_REG 0x603000000013c005",
            "vcpu1 GET_ONE_REG 0x603000000013c005",
            "vm ENABLE_CAP 300 create",
            "vm ENABLE_CAP 300 init-ripas 0x40000000 0x10000000",
            "vm ENABLE_CAP 300 populate 0x40000000 0x10000 0x1",
            "vm ENABLE_CAP 300 populate 0x40400000 0x10000 0x1",
            "vm ENABLE_CAP 300 populate 0x40600000 0x20000 0x1",
            "vcpu0 SET_ONE_REG 0x6030000000100040 0x40000000",
            "vcpu0 SET_ONE_REG 0x6030000000100000 0x40400000",
            "vcpu0 ARM_VCPU_FINALIZE 8",
            "vcpu1 ARM_VCPU_FINALIZE 8",
            "vm ENABLE_CAP 300 activate",
            "vcpu0 RUN",
        ]
    );
    assert_eq!(kernel.open_files(), 0);
}

#[test]
fn a_realm_of_the_second_form_runs_with_one_vcpu() {
    let kernel = Kernel::start(Host::new(Form::Populate));
    let plan = plan(1, Some(40));
    let (ending, _) = run(&kernel, &plan, &[]);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(
        of_the_vm(&kernel),
        [
            "kvm CREATE_VM 0x40000028",
            "kvm GET_VCPU_MMAP_SIZE",
            "vm CREATE_GUEST_MEMFD 0x10000000 0x0",
            "vm SET_USER_MEMORY_REGION2 0 flags 4 at 0x40000000 0x10000000 guest_memfd #0+0x0",
            "vm SET_MEMORY_ATTRIBUTES 0x40000000 0x10000000 0x8 0x0",
            "vm CREATE_DEVICE type 7 flags 0",
            "device SET_DEVICE_ATTR 0.2 0x1100000",
            "device SET_DEVICE_ATTR 0.3 0x1130000",
            "vm CREATE_DEVICE type 8 flags 0",
            "device SET_DEVICE_ATTR 0.4 0x1110000",
            "vm CREATE_VCPU 0x0",
            "vm ARM_PREFERRED_TARGET",
            "vcpu0 ARM_VCPU_INIT target 5 features 0x4",
            "device SET_DEVICE_ATTR 3.0 64",
            "device SET_DEVICE_ATTR 4.0",
            "device SET_DEVICE_ATTR 4.0",
            "vcpu0 GET_ONE_REG 0x603000000013c005",
            "vm ARM_RMI_POPULATE 0x40000000 0x10000 0x1 from 0x40000000",
            "vm ARM_RMI_POPULATE 0x40400000 0x10000 0x1 from 0x40400000",
            "vm ARM_RMI_POPULATE 0x40600000 0x20000 0x1 from 0x40600000",
            "vcpu0 SET_ONE_REG 0x6030000000100040 0x40000000",
            "vcpu0 SET_ONE_REG 0x6030000000100000 0x40400000",
            "vcpu0 RUN",
        ]
    );
    assert_eq!(kernel.open_files(), 0);
}

#[test]
fn a_realm_of_series_v13_runs_by_the_calls_of_v14_in_a_vm_of_v7_s_type() {
    let calls = |form| {
        let kernel = Kernel::start(Host::new(form));
        let (ending, _) = run(&kernel, &plan(2, Some(40)), &[]);
        assert_eq!(ending, Ending::PowerOff);
        assert_eq!(kernel.open_files(), 0);
        of_the_vm(&kernel)
    };
    let (early, late) = (calls(Form::EarlyPopulate), calls(Form::Populate));
    assert_eq!(early[0], "kvm CREATE_VM 0x128");
    assert_eq!(late[0], "kvm CREATE_VM 0x40000028");
    assert_eq!(early[1..], late[1..]);
}

#[test]
fn a_realm_of_series_v15_runs_by_the_calls_of_v14_without_attributes() {
    let calls = |form| {
        let kernel = Kernel::start(Host::new(form));
        let exits = [
            wish(0, RAM + 64 * MIB, PAGE),
            wish(PRIVATE, RAM + 64 * MIB, PAGE),
        ];
        let (ending, report) = run(&kernel, &plan(2, Some(40)), &exits);
        assert_eq!(ending, Ending::PowerOff);
        assert_eq!(report.conversions.unwrap().shared_pages, 1);
        assert_eq!(kernel.open_files(), 0);
        of_the_vm(&kernel)
    };
    let mut told = calls(Form::Populate);
    told.retain(|call| !call.contains("SET_MEMORY_ATTRIBUTES"));
    assert_eq!(calls(Form::PrivateFiles), told);
}

#[test]
fn a_vcpu_that_finds_its_realm_turned_off_waits_for_the_one_that_did_it() {
    const UNKNOWN: u32 = 0;
    const SHUTDOWN: u32 = 8;
    for (form, reason) in [
        (Form::EnableCap, UNKNOWN),
        (Form::EarlyPopulate, SHUTDOWN),
        (Form::Populate, SHUTDOWN),
        (Form::PrivateFiles, SHUTDOWN),
    ] {
        let kernel = Kernel::start(Host::new(form));
        let off = [Exit::RealmOff(reason); 3];
        let (ending, report) = run(&kernel, &plan(1, Some(40)), &off);
        assert_eq!(ending, Ending::PowerOff, "{form:?}");
        assert_eq!(report.exits.other, 3);
    }
}

#[test]
fn a_vcpu_of_the_first_form_that_has_lost_a_race_for_a_table_is_run_again() {
    const ENXIO: i32 = 6;
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    let (ending, report) = run(&kernel, &plan(1, Some(40)), &[Exit::Refused(ENXIO); 3]);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(report.exits.other, 3);
}

#[test]
fn a_vcpu_of_later_forms_is_run_again_once_the_realm_is_active() {
    const ENXIO: i32 = 6;
    for form in [Form::EarlyPopulate, Form::Populate, Form::PrivateFiles] {
        let kernel = Kernel::start(Host::new(form));
        let shares = wish(0, RAM + MIB, PAGE);
        let lost = Exit::Refused(ENXIO);
        let exits = [shares, lost, lost, wish(PRIVATE, RAM + MIB, PAGE), lost];
        let (ending, report) = run(&kernel, &plan(1, Some(40)), &exits);
        assert_eq!(ending, Ending::PowerOff, "{form:?}");
        assert_eq!(report.exits.other, 3, "{form:?}");
    }
}

#[test]
fn a_vcpu_that_the_rmm_never_runs_ends_the_run() {
    const ENXIO: i32 = 6;
    for (form, before) in [
        (Form::EnableCap, vec![]),
        (Form::Populate, vec![wish(0, RAM + MIB, PAGE)]),
    ] {
        let kernel = Kernel::start(Host::new(form));
        let exits = [before, vec![Exit::Refused(ENXIO); 200]].concat();
        let (ending, _) = run(&kernel, &plan(1, Some(40)), &exits);
        let Ending::Failed(why) = ending else {
            panic!("{ending:?}");
        };
        assert!(why.contains("KVM_RUN failed with ENXIO"), "{why}");
    }
}

#[test]
fn what_was_loaded_is_what_the_realm_finds() {
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    let plan = plan(1, None);
    run(&kernel, &plan, &[]);
    assert_eq!(kernel.private(RAM + 0x1000), Some(0), "beyond the file");
    assert_eq!(kernel.private(RAM + 0x100), Some(0x1f), "kernel");
    assert_eq!(kernel.private(0x4040_0000), Some(0xd0), "device tree");
    let initrd = 0x4060_0000;
    assert_eq!(kernel.private(initrd), Some(0x77));
    assert_eq!(kernel.private(initrd + INITRD_BYTES as u64 - 1), Some(0x77));
    assert_eq!(kernel.private(initrd + INITRD_BYTES as u64), Some(0));
    assert_eq!(kernel.private(initrd + 0x2_0000), None, "never populated");
}

#[test]
fn the_same_config_is_measured_the_same() {
    let calls = || {
        let kernel = Kernel::start(Host::new(Form::EnableCap));
        run(&kernel, &plan(2, None), &[]);
        let tree: Vec<_> = (0x4040_0000..0x4040_4000)
            .map(|at| kernel.private(at))
            .collect();
        (of_the_vm(&kernel), tree)
    };
    assert_eq!(calls(), calls(), "no random number goes into a Realm");
}

#[test]
fn pages_follow_the_wishes_of_the_realm() {
    for form in FORMS {
        let kernel = Kernel::start(Host::new(form));
        let plan = plan(1, Some(36));
        let top = 1 << 35;
        let exits = [
            // All memory to private, as Linux asks first: it is.
            wish(PRIVATE, RAM, 256 * MIB),
            wish(0, RAM + 64 * MIB, 16 * MIB),
            // By the shared alias, and a part of what is shared already.
            wish(0, top | (RAM + 63 * MIB), 2 * MIB),
            wish(PRIVATE, RAM + 64 * MIB, PAGE),
            // Devices have no state.
            wish(0, 0x0110_0000, PAGE),
            Exit::MemoryFault {
                flags: PRIVATE,
                gpa: RAM + 65 * MIB,
                size: PAGE,
                completing: true,
            },
        ];
        let (ending, report) = run(&kernel, &plan, &exits);
        assert_eq!(ending, Ending::PowerOff);
        assert_eq!(report.exits.memory_fault, 6);
        let notes = of_the_vm(&kernel);
        let attributes = notes
            .iter()
            .filter(|note| note.contains("SET_MEMORY_ATTRIBUTES"));
        let attributes: Vec<_> = attributes.skip(1).collect();
        let told: &[&str] = match form {
            Form::PrivateFiles => &[],
            _ => &[
                "vm SET_MEMORY_ATTRIBUTES 0x44000000 0x1000000 0x0 0x0",
                "vm SET_MEMORY_ATTRIBUTES 0x43f00000 0x100000 0x0 0x0",
                "vm SET_MEMORY_ATTRIBUTES 0x44000000 0x1000 0x8 0x0",
                "vm SET_MEMORY_ATTRIBUTES 0x44100000 0x1000 0x8 0x0",
            ],
        };
        assert_eq!(attributes, told, "{form:?}: {notes:#?}");
        let conversions = report.conversions.unwrap();
        assert_eq!(conversions.shared_pages, 17 * MIB / PAGE);
        assert_eq!(conversions.private_pages, 2);
    }
}

#[test]
fn a_shared_page_gives_its_private_form_back() {
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    let plan = plan(1, None);
    // Where the initial RAM disk was loaded.
    run(&kernel, &plan, &[wish(0, 0x4060_0000, PAGE)]);
    assert_eq!(kernel.private(0x4060_0000), None);
    assert_eq!(kernel.private(0x4060_1000), Some(0x77));
}

#[test]
fn devices_answer_at_the_address_without_the_shared_bit() {
    let kernel = Kernel::start(Host::new(Form::EnableCap));
    let plan = plan(1, None);
    let Board::Arm(mmio) = plan.board() else {
        panic!("a machine of another architecture");
    };
    let serial = mmio.serial.start().raw();
    let byte = |at| Exit::Store { at, byte: b'.' };
    let top = 1_u64 << plan.shared_bit().unwrap();
    let exits = [byte(serial), byte(serial | top), byte(0x3000_0000)];
    let (_, report) = run(&kernel, &plan, &exits);
    assert_eq!((report.exits.mmio_write, report.exits.unclaimed), (3, 1));
}

#[test]
fn a_conversion_that_the_host_refuses_ends_the_run() {
    const ENOMEM: i32 = 12;
    let kernel = Kernel::start(Host::new(Form::Populate));
    let plan = plan(1, None);
    run(&kernel, &plan, &[]);
    let calls = kernel.notes().len();
    drop(kernel);
    let kernel = Kernel::start(Host::new(Form::Populate));
    // The same calls, then the attributes of the page.
    kernel.fail(calls + 1, ENOMEM);
    let (ending, _) = run(&kernel, &plan, &[wish(0, RAM, PAGE)]);
    let Ending::Failed(why) = ending else {
        panic!("{ending:?}");
    };
    assert!(
        why.contains("0x40000000") && why.contains("shared"),
        "{why}"
    );
    assert_eq!(kernel.private(RAM), Some(0), "the page is still private");
}

#[test]
fn a_memory_fault_that_names_no_pages_ends_the_run() {
    for (gpa, size) in [(RAM, 0), (RAM, u64::MAX)] {
        let kernel = Kernel::start(Host::new(Form::EnableCap));
        let (ending, _) = run(&kernel, &plan(1, None), &[wish(0, gpa, size)]);
        assert!(matches!(ending, Ending::Failed(_)), "{gpa:#x}: {ending:?}");
    }
}

#[test]
fn each_call_that_fails_is_reported_and_leaves_nothing_open() {
    const EIO: i32 = 5;
    for form in FORMS {
        let plan = plan(2, Some(40));
        let kernel = Kernel::start(Host::new(form));
        run(&kernel, &plan, &[]);
        let calls = kernel.notes();
        drop(kernel);
        let first_run = calls.iter().position(|call| call.contains(" RUN")).unwrap();
        // Before that the host is asked what it has.
        let create = calls
            .iter()
            .rposition(|call| call.contains("CREATE_VM "))
            .unwrap();
        let (before, _) = calls.split_at(first_run);
        for (index, call) in before.iter().enumerate().skip(create) {
            let kernel = Kernel::start(Host::new(form));
            kernel.exit(0, Exit::SystemEvent(1));
            kernel.fail(index + 1, EIO);
            let error = launch(&plan).map(drop).unwrap_err();
            let finding = error.diagnose();
            assert!(!finding.message.is_empty(), "{call}");
            assert_eq!(kernel.open_files(), 0, "{form:?}, {call}: {finding}");
        }
    }
}

#[test]
fn a_refused_call_is_reported_with_the_form_of_the_interface_and_a_hint() {
    const ENXIO: i32 = 6;
    for (form, call, series) in [
        (Form::EnableCap, "ENABLE_CAP 300 create", "v7"),
        (Form::EnableCap, "ARM_VCPU_FINALIZE", "v7"),
        (Form::EarlyPopulate, "ARM_RMI_POPULATE", "v13"),
        (Form::Populate, "ARM_RMI_POPULATE", "v14"),
        (Form::PrivateFiles, "ARM_RMI_POPULATE", "v15"),
    ] {
        let plan = plan(1, Some(40));
        let kernel = Kernel::start(Host::new(form));
        run(&kernel, &plan, &[]);
        let notes = kernel.notes();
        drop(kernel);
        // The last of its kind: those before find out what the host has.
        let index = notes.iter().rposition(|note| note.contains(call)).unwrap();
        let kernel = Kernel::start(Host::new(form));
        kernel.fail(index + 1, ENXIO);
        let finding = launch(&plan).map(drop).unwrap_err().diagnose();
        let named = call.split(' ').next().unwrap();
        for part in [named, series, "os error 6"] {
            assert!(finding.message.contains(part), "{call}: {finding}");
        }
        let help = finding.help.unwrap();
        assert!(help.contains("kernel's log"), "{help}");
    }
}

#[test]
fn a_first_run_that_the_rmm_refuses_says_that_it_was_to_activate_the_realm() {
    const ENXIO: i32 = 6;
    let plan = plan(1, Some(40));
    let kernel = Kernel::start(Host::new(Form::Populate));
    run(&kernel, &plan, &[]);
    let calls = kernel.notes().len();
    drop(kernel);
    let kernel = Kernel::start(Host::new(Form::Populate));
    kernel.fail(calls, ENXIO);
    let (ending, _) = run(&kernel, &plan, &[]);
    let Ending::Failed(why) = ending else {
        panic!("{ending:?}");
    };
    assert!(why.contains("activate a Realm"), "{why}");
}

#[test]
fn a_width_that_the_rmm_does_not_make_is_told_from_a_host_without_realms() {
    let mut host = Host::new(Form::Populate);
    host.realm_bits = 40;
    let kernel = Kernel::start(host);
    let error = launch(&plan(1, Some(44))).map(drop).unwrap_err();
    let finding = error.diagnose();
    assert!(finding.message.contains("44 address bits"), "{finding}");
    assert!(finding.help.unwrap().contains("--override-ipa-bits"));
    assert_eq!(kernel.open_files(), 0);
}

#[test]
fn a_host_that_has_lost_its_realms_says_what_it_lacks() {
    let kernel = Kernel::start(Host::new(Form::None));
    let error = launch(&plan(1, None)).map(drop).unwrap_err();
    let finding = error.diagnose().message;
    assert!(
        finding.contains("makes no Realms") && finding.contains("1 << 30"),
        "{finding}"
    );
    assert_eq!(kernel.open_files(), 0);
}
