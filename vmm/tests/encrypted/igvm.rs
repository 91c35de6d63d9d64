//! A guest of SEV-SNP that is an IGVM file, from its plan to its end.

use igvm::snp_defs::{SevFeatures, SevVmsa};
use igvm::{
    IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision,
};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags,
    IgvmPageDataType, IgvmPlatformType,
};
use iommu::{Gpa, PageRange};
use scripted::{Form, Host, Kernel};
use tempfile::NamedTempFile;
use vmm::config::spec::ResourceSpec;
use vmm::launch::Planned;
use vmm::measure::snp::{ContentFree, LaunchDigest};
use vmm::measure::{Expected, MeasuredOn, Register};
use vmm::plan::VmPlan;
use vmm::run::Ending;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::snp::plan;
use crate::{MIB, PAGE, boot, each_call_fails, file, of_the_vm, only, run};

const CODE: u64 = 2 * MIB;
const SECRETS: u64 = 0x1_0000;
const CPUID: u64 = 0x1_1000;
const TOLD: u64 = 0x1_2000;

fn vmsa() -> Box<SevVmsa> {
    let mut vmsa = SevVmsa::new_box_zeroed().unwrap();
    vmsa.cs.attrib = 0xa9b;
    vmsa.cs.limit = u32::MAX;
    vmsa.efer = 0x1d00;
    vmsa.cr0 = 0x8000_0011;
    vmsa.cr3 = 0x3000;
    vmsa.cr4 = 0x60;
    vmsa.rip = CODE;
    vmsa.rsi = TOLD;
    as_every(&mut vmsa);
    vmsa
}

/// A processor that KVM has made and that is told nothing: as Linux 7.3 resets it.
pub(crate) fn untold() -> Box<SevVmsa> {
    let mut vmsa = SevVmsa::new_box_zeroed().unwrap();
    for data in [
        &mut vmsa.es,
        &mut vmsa.ss,
        &mut vmsa.ds,
        &mut vmsa.fs,
        &mut vmsa.gs,
    ] {
        (data.attrib, data.limit) = (0x92, 0xffff);
    }
    (vmsa.cs.selector, vmsa.cs.attrib) = (0xf000, 0x9a);
    (vmsa.cs.limit, vmsa.cs.base) = (0xffff, 0xffff_0000);
    (vmsa.ldtr.attrib, vmsa.ldtr.limit) = (0x82, 0xffff);
    (vmsa.tr.attrib, vmsa.tr.limit) = (0x83, 0xffff);
    (vmsa.gdtr.limit, vmsa.idtr.limit) = (0xffff, 0xffff);
    vmsa.efer = 0x1000;
    (vmsa.cr0, vmsa.cr4) = (0x10, 0x40);
    (vmsa.rip, vmsa.rdx) = (0xfff0, 0x600);
    as_every(&mut vmsa);
    vmsa
}

/// What KVM gives every processor.
pub(crate) fn as_every(vmsa: &mut SevVmsa) {
    vmsa.dr6 = 0xffff_0ff0;
    vmsa.dr7 = 0x400;
    vmsa.rflags = 2;
    vmsa.pat = 0x0007_0406_0007_0406;
    vmsa.xcr0 = 1;
    vmsa.mxcsr = 0x1f80;
    vmsa.x87_fcw = 0x37f;
    vmsa.sev_features = SevFeatures::new().with_snp(true);
}

fn page(
    gpa: u64,
    data_type: IgvmPageDataType,
    unmeasured: bool,
    data: &[u8],
) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: 1,
        flags: IgvmPageDataFlags::new().with_unmeasured(unmeasured),
        data_type,
        data: data.to_vec(),
    }
}

/// A guest with something of every kind, and besides that `more`.
fn guest(more: Vec<IgvmDirectiveHeader>) -> NamedTempFile {
    const AREA: u32 = 3;
    let parameter = |byte_offset| IGVM_VHS_PARAMETER {
        parameter_area_index: AREA,
        byte_offset,
    };
    let normal = IgvmPageDataType::NORMAL;
    let mut directives = vec![
        page(CODE, normal, false, &[0x11; 4096]),
        page(CODE + PAGE, normal, false, &[0x22; 4096]),
        page(0x3000, normal, false, &[]),
        page(0x5000, normal, true, &[0x33; 4096]),
        page(SECRETS, IgvmPageDataType::SECRETS, false, &[]),
        page(CPUID, IgvmPageDataType::CPUID_DATA, false, &[]),
        IgvmDirectiveHeader::ParameterArea {
            number_of_bytes: PAGE,
            parameter_area_index: AREA,
            initial_data: Vec::new(),
        },
        IgvmDirectiveHeader::VpCount(parameter(0)),
        IgvmDirectiveHeader::CommandLine(parameter(8)),
        IgvmDirectiveHeader::MemoryMap(parameter(0x800)),
        IgvmDirectiveHeader::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: TOLD,
            compatibility_mask: 1,
            parameter_area_index: AREA,
        }),
    ];
    directives.extend(more);
    directives.push(IgvmDirectiveHeader::SnpVpContext {
        gpa: 0xffff_ffff_f000,
        compatibility_mask: 1,
        vp_index: 0,
        vmsa: vmsa(),
    });
    written(directives)
}

fn written(directives: Vec<IgvmDirectiveHeader>) -> NamedTempFile {
    let platform = IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: 1,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: 1,
        shared_gpa_boundary: 0,
    });
    // The owner lets the host debug, which is another policy than that of guests which say nothing.
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: 0xb_0000,
        compatibility_mask: 1,
    };
    let made = IgvmFile::new(IgvmRevision::V1, vec![platform], vec![policy], directives).unwrap();
    let mut bytes = Vec::new();
    made.serialize(&mut bytes).unwrap();
    file(&bytes)
}

#[test]
fn a_file_is_loaded_in_its_own_order() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let guest = guest(Vec::new());
    let (ending, _) = run(&kernel, &plan(2), &boot(guest.path(), None), &[]);
    assert_eq!(ending, Ending::PowerOff);
    assert_eq!(
        only(&of_the_vm(&kernel), &["SNP_", "REGS", " RUN"]),
        [
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_START policy 0xb0000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 1 at 0x200000 0x2000 from 0x200000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 1 at 0x3000 0x1000 from 0x3000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 4 at 0x5000 0x1000 from 0x5000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 5 at 0x10000 0x1000 from 0x10000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 6 at 0x11000 0x1000 from 0x11000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_UPDATE type 4 at 0x12000 0x1000 from 0x12000",
            "vcpu0 GET_SREGS",
            "vcpu0 SET_SREGS cr0 0x80000011 cr3 0x3000 cr4 0x60 efer 0xd00",
            "vcpu0 SET_REGS rip 0x200000 rsi 0x12000",
            "vm MEMORY_ENCRYPT_OP SNP_LAUNCH_FINISH",
            "vcpu0 RUN",
        ]
    );
    assert_eq!(kernel.open_files(), 0);
}

fn found(kernel: &Kernel, at: u64, bytes: usize) -> Vec<u8> {
    let all = (at..).take(bytes);
    all.map(|at| kernel.private(at).unwrap()).collect()
}

#[test]
fn the_guest_finds_what_the_file_holds_and_what_it_asks_for() {
    let kernel = Kernel::start(Host::new(Form::Snp));
    let guest = guest(Vec::new());
    run(&kernel, &plan(2), &boot(guest.path(), None), &[]);
    assert_eq!(
        found(&kernel, CODE, 8192),
        [[0x11; 4096], [0x22; 4096]].concat()
    );
    assert_eq!(found(&kernel, 0x3000, 4096), [0; 4096]);
    assert_eq!(found(&kernel, 0x5000, 1), [0x33]);
    assert_eq!(found(&kernel, TOLD, 4), [2, 0, 0, 0], "processors");
    // What ccvm adds for a machine without PCI is told, too.
    assert_eq!(found(&kernel, TOLD + 8, 22), b"console=ttyS0 pci=off\0");
    let map = [0_u64, 0x1_0000, 0, 0, 0, 0].map(u64::to_le_bytes).concat();
    assert_eq!(found(&kernel, TOLD + 0x800, 48), map, "256 MiB");
    assert_eq!(found(&kernel, CPUID, 1), [10], "leaves");
    assert_eq!(
        kernel.private(CODE + 2 * PAGE),
        None,
        "the guest's to accept"
    );
}

/// The digest of what was loaded, from what the kernel was asked for and what it then held.
pub(crate) fn digest_of_calls(kernel: &Kernel, processors: &[Box<SevVmsa>]) -> String {
    let mut digest = LaunchDigest::default();
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    let calls = only(&of_the_vm(kernel), &["SNP_LAUNCH_UPDATE"]);
    let calls: Vec<(&str, u64, u64)> = calls
        .iter()
        .map(|call| {
            let words: Vec<&str> = call.split_whitespace().collect();
            (words[4], number(words[6]), number(words[7]))
        })
        .collect();
    for (index, (kind, at, bytes)) in calls.iter().copied().enumerate() {
        // A kernel that stops on its way is asked for the rest.
        let next = calls
            .get(index + 1)
            .and_then(|(_, next, _)| next.checked_sub(at));
        let bytes = next.map_or(bytes, |done| bytes.min(done));
        let range = PageRange::new(Gpa::new(at), bytes).unwrap();
        match kind {
            "1" => {
                for page in (at..at + bytes).step_by(4096) {
                    let content = found(kernel, page, 4096);
                    digest.normal(Gpa::new(page), content.first_chunk().unwrap());
                }
            }
            "3" => digest.content_free(range, ContentFree::Zero),
            "4" => digest.content_free(range, ContentFree::Unmeasured),
            "5" => digest.content_free(range, ContentFree::Secrets),
            other => {
                assert_eq!(other, "6");
                digest.content_free(range, ContentFree::Cpuid);
            }
        }
    }
    for vmsa in processors {
        digest.vmsa_page(vmsa.as_bytes().first_chunk().unwrap());
    }
    digest.digest().to_string()
}

#[test]
fn what_is_loaded_is_what_is_foretold() {
    for vcpus in [1, 2] {
        let kernel = Kernel::start(Host::new(Form::Snp));
        let guest = guest(Vec::new());
        let spec = boot(guest.path(), None);
        run(&kernel, &plan(vcpus), &spec, &[]);
        let expected = Expected::of(&plan(vcpus), &spec, MeasuredOn::default()).unwrap();
        assert_eq!(expected.register, Register::SnpLaunchDigest);
        let processors = [vmsa(), untold()];
        let made = digest_of_calls(&kernel, &processors[..vcpus as usize]);
        assert_eq!(expected.digest.to_string(), made, "{vcpus} processors");
        let segments: Vec<u64> = expected
            .segments
            .iter()
            .map(|one| one.start.raw())
            .collect();
        assert_eq!(segments, [0x3000, CODE]);
    }
}

#[test]
fn each_call_that_fails_is_reported_and_leaves_nothing_open() {
    let guest = guest(Vec::new());
    let spec = boot(guest.path(), None);
    each_call_fails(|| Host::new(Form::Snp), &plan(2), &spec);
}

fn refusal(plan: VmPlan, spec: &vmm::config::spec::BootSpec) -> String {
    let refused = Planned::new(plan, spec, ResourceSpec::default()).map(drop);
    let findings = refused.unwrap_err();
    findings
        .iter()
        .map(|finding| finding.message.as_str())
        .collect()
}

#[test]
fn what_goes_nowhere_is_refused_before_the_host_is_touched() {
    let whole = guest(Vec::new());
    let initrd = file(&[1; 4096]);
    let told = refusal(plan(1), &boot(whole.path(), Some(initrd.path())));
    assert!(told.contains("its own initial RAM disk"), "{told}");
    let mut long = boot(whole.path(), None);
    long.cmdline = "x".repeat(2040);
    let told = refusal(plan(1), &long);
    assert!(told.contains("no room for the memory map"), "{told}");
    let beyond = guest(vec![page(
        0x1000_0000,
        IgvmPageDataType::NORMAL,
        false,
        &[],
    )]);
    let told = refusal(plan(1), &boot(beyond.path(), None));
    assert!(told.contains("IGVM file needs 4096 bytes"), "{told}");
    let silent = written(vec![
        page(CODE, IgvmPageDataType::NORMAL, false, &[1; 4096]),
        IgvmDirectiveHeader::SnpVpContext {
            gpa: 0xffff_ffff_f000,
            compatibility_mask: 1,
            vp_index: 0,
            vmsa: vmsa(),
        },
    ]);
    let told = refusal(plan(1), &boot(silent.path(), None));
    assert!(told.contains("its own command line"), "{told}");
}
