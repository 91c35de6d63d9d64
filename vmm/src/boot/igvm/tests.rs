//! Files of the reference implementation's writer, and files that it would not write.

use flate2::Crc;
use igvm::snp_defs::{SevFeatures, SevVmsa};
use igvm::{
    IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision,
};
use igvm_defs::{
    IGVM_VHS_PARAMETER, IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags,
    IgvmPageDataType, IgvmPlatformType,
};
use proptest::prelude::*;
use zerocopy::FromZeros as _;

use super::*;

/// SNP's bit of masks, and another platform's.
const SNP: u32 = 1;
const OTHER: u32 = 2;
const PAGE: u64 = 4096;
const POLICY: u64 = 0x3_0000;

fn vmsa() -> Box<SevVmsa> {
    let mut vmsa = SevVmsa::new_box_zeroed().unwrap();
    vmsa.cs.selector = 0xf000;
    vmsa.cs.attrib = 0x9b;
    vmsa.cs.limit = 0xffff;
    vmsa.cs.base = 0xffff_0000;
    vmsa.gdtr.limit = 0xffff;
    vmsa.efer = 0x1000;
    vmsa.cr0 = 0x10;
    vmsa.cr4 = 0x40;
    vmsa.dr6 = 0xffff_0ff0;
    vmsa.dr7 = 0x400;
    vmsa.rflags = 2;
    vmsa.rip = 0xfff0;
    vmsa.rsi = 0x1234;
    vmsa.pat = 0x0007_0406_0007_0406;
    vmsa.xcr0 = 1;
    vmsa.mxcsr = 0x1f80;
    vmsa.x87_fcw = 0x37f;
    vmsa.sev_features = SevFeatures::new().with_snp(true);
    vmsa
}

fn processor(mask: u32, vmsa: Box<SevVmsa>) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::SnpVpContext {
        gpa: 0xffff_ffff_f000,
        compatibility_mask: mask,
        vp_index: 0,
        vmsa,
    }
}

fn page(mask: u32, gpa: u64, data_type: IgvmPageDataType, data: &[u8]) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: mask,
        flags: IgvmPageDataFlags::new(),
        data_type,
        data: data.to_vec(),
    }
}

fn normal(gpa: u64, byte: u8) -> IgvmDirectiveHeader {
    page(SNP, gpa, IgvmPageDataType::NORMAL, &[byte; 4096])
}

fn area(parameter_area_index: u32, number_of_bytes: u64) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::ParameterArea {
        number_of_bytes,
        parameter_area_index,
        initial_data: Vec::new(),
    }
}

fn at(parameter_area_index: u32, byte_offset: u32) -> IGVM_VHS_PARAMETER {
    IGVM_VHS_PARAMETER {
        parameter_area_index,
        byte_offset,
    }
}

fn insert(parameter_area_index: u32, gpa: u64) -> IgvmDirectiveHeader {
    IgvmDirectiveHeader::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
        gpa,
        compatibility_mask: SNP,
        parameter_area_index,
    })
}

/// As the reference implementation writes it.
fn written(directives: Vec<IgvmDirectiveHeader>) -> Vec<u8> {
    let platform = |compatibility_mask, platform_type| {
        IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
            compatibility_mask,
            highest_vtl: 0,
            platform_type,
            platform_version: 1,
            shared_gpa_boundary: 0,
        })
    };
    let platforms = vec![
        platform(OTHER, IgvmPlatformType::SEV_ES),
        platform(SNP, IgvmPlatformType::SEV_SNP),
    ];
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: POLICY,
        compatibility_mask: SNP,
    };
    let file = IgvmFile::new(IgvmRevision::V1, platforms, vec![policy], directives).unwrap();
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).unwrap();
    bytes
}

fn parsed(directives: Vec<IgvmDirectiveHeader>) -> Igvm {
    Igvm::parse(written(directives)).unwrap()
}

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

fn told<'a>(dram: &'a [PageRange<Gpa>], cmdline: &'a str) -> Told<'a> {
    Told {
        vcpus: 3,
        dram,
        devices: [Some(range(0xc000_0000, 0x1000_0000)), None],
        cmdline,
    }
}

fn pieces(igvm: &Igvm) -> Vec<(u64, u64, PageContent)> {
    let pieces = igvm.pieces().iter();
    pieces
        .map(|piece| {
            (
                piece.range.start().raw(),
                piece.range.pages(),
                piece.content(),
            )
        })
        .collect()
}

#[test]
fn pages_are_in_the_files_order_and_those_that_go_on_are_one_piece() {
    use PageContent::{Cpuid, Measured, Secrets};
    let igvm = parsed(vec![
        normal(0x20_0000, 1),
        normal(0x20_1000, 2),
        page(SNP, 0x20_2000, IgvmPageDataType::NORMAL, &[]),
        page(SNP, 0x10_0000, IgvmPageDataType::SECRETS, &[]),
        page(SNP, 0x10_1000, IgvmPageDataType::CPUID_DATA, &[]),
        page(OTHER, 0x10_2000, IgvmPageDataType::NORMAL, &[9; 4096]),
        normal(0x1000, 3),
        processor(SNP, vmsa()),
        processor(OTHER, SevVmsa::new_box_zeroed().unwrap()),
    ]);
    assert_eq!(
        pieces(&igvm),
        [
            (0x20_0000, 2, Measured),
            (0x20_2000, 1, Measured),
            (0x10_0000, 1, Secrets),
            (0x10_1000, 1, Cpuid),
            (0x1000, 1, Measured),
        ]
    );
    let content = igvm.content(&igvm.pieces()[0]);
    assert_eq!(content.len(), 8192);
    assert_eq!((content[4095], content[4096]), (1, 2));
    assert!(igvm.content(&igvm.pieces()[1]).is_empty(), "zeros");
    assert_eq!(igvm.policy(), Some(POLICY));
    assert!(!igvm.takes_command_line());
}

#[test]
fn what_the_guest_is_told_is_where_its_file_wants_it() {
    let igvm = parsed(vec![
        area(7, 2 * PAGE),
        IgvmDirectiveHeader::VpCount(at(7, 8)),
        IgvmDirectiveHeader::MemoryMap(at(7, 0x100)),
        IgvmDirectiveHeader::CommandLine(at(7, 0x200)),
        IgvmDirectiveHeader::Madt(at(7, 0x400)),
        IgvmDirectiveHeader::MmioRanges(at(7, 0x1000)),
        IgvmDirectiveHeader::EnvironmentInfo(at(7, 0x1ffc)),
        normal(0x1000, 1),
        insert(7, 0x8000),
        processor(SNP, vmsa()),
    ]);
    assert!(igvm.takes_command_line());
    let piece = &igvm.pieces()[1];
    assert_eq!(
        (piece.range, piece.content()),
        (range(0x8000, 0x2000), PageContent::Unmeasured)
    );
    let dram = [range(0, 0x800_0000), range(1 << 32, 0x1000)];
    let bytes = igvm.bytes(piece, &told(&dram, "quiet")).unwrap();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes.len(), 0x2000);
    assert_eq!(number(8), 3);
    let map: Vec<u64> = (0..9).map(|word| number(0x100 + word * 8)).collect();
    assert_eq!(map, [0, 0x8000, 0, 0x10_0000, 1, 0, 0, 0, 0]);
    assert_eq!(&bytes[0x200..0x206], b"quiet\0");
    assert_eq!(&bytes[0x400..0x404], b"APIC");
    let devices: Vec<u64> = (0..4).map(|word| number(0x1000 + word * 8)).collect();
    assert_eq!(devices, [0xc_0000, 0x1_0000, 0, 0]);
}

#[test]
fn a_parameter_that_does_not_fit_is_named() {
    let igvm = parsed(vec![
        area(0, PAGE),
        IgvmDirectiveHeader::CommandLine(at(0, 0xff0)),
        normal(0x1000, 1),
        insert(0, 0x8000),
        processor(SNP, vmsa()),
    ]);
    let piece = &igvm.pieces()[1];
    assert!(igvm.bytes(piece, &told(&[], &"x".repeat(15))).is_ok());
    let error = igvm.bytes(piece, &told(&[], &"x".repeat(16))).unwrap_err();
    assert_eq!((error.kind, error.bytes), (Kind::CommandLine, 17));
    assert!(
        error.to_string().contains("no room for the command line"),
        "{error}"
    );
}

#[test]
fn what_is_required_counts_as_memory() {
    let igvm = parsed(vec![
        normal(0x1000, 1),
        IgvmDirectiveHeader::RequiredMemory {
            gpa: 0x40_0000,
            compatibility_mask: SNP,
            number_of_bytes: 0x3000,
            vtl2_protectable: false,
        },
        processor(SNP, vmsa()),
    ]);
    let memory: Vec<_> = igvm.memory().collect();
    assert_eq!(memory, [range(0x1000, PAGE), range(0x40_0000, 0x3000)]);
}

#[test]
fn a_processor_starts_as_kvm_can_be_told_or_not_at_all() {
    let read = |change: fn(&mut SevVmsa)| {
        let mut vmsa = vmsa();
        change(&mut vmsa);
        Igvm::parse(written(vec![normal(0x1000, 1), processor(SNP, vmsa)]))
    };
    let started = read(|vmsa| vmsa.cr0 |= 1 << 30).unwrap();
    let page = started.processor().measured();
    let number = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    assert_eq!(
        (number(0x158), number(0xd0), number(0x148)),
        (0x10, 0x1000, 0x40)
    );
    type Change = fn(&mut SevVmsa);
    let cases: [(Change, usize); 6] = [
        (|vmsa| vmsa.vmpl = 1, 0xca),
        (|vmsa| vmsa.dr6 = 0, 0x168),
        (
            |vmsa| vmsa.sev_features = SevFeatures::new().with_snp(true).with_vtom(true),
            0x3b0,
        ),
        (|vmsa| vmsa.virtual_tom = 1 << 40, 0x3c8 + 5),
        (|vmsa| vmsa.gdtr.selector = 8, 0x60),
        (|vmsa| vmsa.cs.attrib = 0x109b, 0x13),
    ];
    for (change, offset) in cases {
        let refused = read(change).unwrap_err();
        assert_eq!(refused, NotStartable::Processor(Unlike::Field(offset)));
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn kvm_is_told_the_registers_of_the_file() {
    let igvm = parsed(vec![normal(0x1000, 1), processor(SNP, vmsa())]);
    let registers = igvm.processor().registers();
    assert_eq!((registers.rip, registers.rflags), (0xfff0, 2));
    assert_eq!(registers.general[4], 0x1234, "rsi");
    assert_eq!(
        (registers.cr0, registers.cr4, registers.efer),
        (0x10, 0x40, 0)
    );
    let code = registers.segments[1];
    assert_eq!((code.selector, code.attributes), (0xf000, 0x9b));
    assert_eq!((code.limit, code.base), (0xffff, 0xffff_0000));
    assert_eq!(registers.tables[0].limit, 0xffff);
}

/// A file with these headers, whatever they are: 64 KiB, the last half of which are 0x55.
fn raw(headers: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut variable = Vec::new();
    for (kind, content) in headers {
        variable.extend(kind.to_le_bytes());
        variable.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        variable.extend(content);
        variable.resize(variable.len().next_multiple_of(8), 0);
    }
    let size = u32::try_from(variable.len()).unwrap();
    let mut file = b"IGVM".to_vec();
    for number in [1, 24, size, 0x1_0000, 0] {
        file.extend(u32::to_le_bytes(number));
    }
    file.extend(variable);
    file.resize(0x8000, 0);
    file.resize(0x1_0000, 0x55);
    sealed(file)
}

/// With the checksum that its headers have.
fn sealed(mut file: Vec<u8>) -> Vec<u8> {
    let size = usize::try_from(u32::from_le_bytes(file[12..16].try_into().unwrap())).unwrap();
    file[20..24].fill(0);
    let mut crc = Crc::new();
    crc.update(&file[..24]);
    crc.update(&file[24..24 + size]);
    let sum = crc.sum();
    file[20..24].copy_from_slice(&sum.to_le_bytes());
    file
}

fn numbers(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// One supported platform, SNP, then these.
fn with(mut headers: Vec<(u32, Vec<u8>)>) -> Result<Igvm, NotStartable> {
    let platform = [numbers(&[SNP]), vec![0, 2, 1, 0], numbers(&[0, 0])].concat();
    headers.insert(0, (1, platform));
    Igvm::parse(raw(&headers))
}

/// `IGVM_VHS_PAGE_DATA`.
fn page_data(at: u32, offset: u32, flags: u32, kind: u32) -> (u32, Vec<u8>) {
    (0x302, numbers(&[at, 0, SNP, offset, flags, kind]))
}

#[test]
fn what_ccvm_does_not_do_is_refused_by_name() {
    let wants = |header: (u32, Vec<u8>), what: &str| {
        let refused = with(vec![header]).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    };
    wants(page_data(0x20_0000, 0x8000, 1, 0), "2 MiB");
    wants(page_data(0x1000, 0x8000, 4, 0), "shared from the start");
    wants(page_data(0x1000, 0, 0, 3), "XSAVE");
    wants(
        (0x30d, numbers(&[0x1000, 0, SNP, 0x1000])),
        "range for errors",
    );
    wants((0x30b, numbers(&[SNP])), "ID block");
    for (kind, what) in [
        (0x308, "SRAT"),
        (0x30f, "SLIT"),
        (0x310, "PPTT"),
        (0x312, "tree"),
    ] {
        wants((kind, numbers(&[0, 0])), what);
    }
    wants((0x320, Vec::new()), "header 1 (type 0x320) makes no sense");
    wants(page_data(0x1001, 0x8000, 0, 0), "makes no sense");
    wants(page_data(0x1000, 0x8000, 8, 0), "makes no sense");
    wants((0x302, numbers(&[0x1000, 0, SNP])), "makes no sense");
    // The offset of the content.
    wants(
        page_data(0x1000, 0xf001, 0, 0),
        "shorter than its header 1 says",
    );
    wants(
        page_data(0x1000, u32::MAX, 0, 0),
        "shorter than its header 1 says",
    );
}

#[test]
fn what_is_optional_and_what_is_another_platforms_is_passed_over() {
    let other = (0x30d, numbers(&[0x1000, 0, OTHER, 0x1000]));
    let passed = with(vec![
        other,
        (0x8000_0320, vec![1, 2, 3]),
        (0x107, vec![0; 5]),
    ]);
    assert_eq!(passed, Err(NotStartable::Empty), "nothing is left");
}

#[test]
fn a_file_without_a_guest_of_snp_or_with_half_of_one_is_refused() {
    let none = Igvm::parse(raw(&[(1, numbers(&[1, 0x0001_0300, 0, 0]))]));
    assert_eq!(none, Err(NotStartable::Refused(Refused::NoSnp)));
    let page = || page_data(0x1000, 0x8000, 0, 0);
    assert_eq!(with(vec![page()]), Err(NotStartable::Processors));
    let twice = with(vec![page(), page_data(0x1000, 0, 0, 0)]);
    assert_eq!(twice, Err(NotStartable::Overlap(Gpa::new(0x1000))));
    let area = |bytes: u32| (0x301, numbers(&[bytes, 0, 5, 0]));
    let insert = || (0x303, numbers(&[0x2000, 0, SNP, 5]));
    let five = Err(NotStartable::Area(5));
    assert_eq!(with(vec![area(0x1000), page()]), five, "put nowhere");
    assert_eq!(with(vec![area(0x1000), area(0x1000)]), five, "there twice");
    assert_eq!(with(vec![insert()]), five, "not there");
    assert_eq!(with(vec![(0x307, numbers(&[5, 0]))]), five);
    assert_eq!(with(vec![area(0x1000), insert(), insert()]), five);
    for bytes in [0, 1, 0x20_0000] {
        assert!(matches!(
            with(vec![area(bytes)]),
            Err(NotStartable::Refused(_))
        ));
    }
}

#[test]
fn a_frame_that_is_not_whole_is_told_from_a_version_that_is_not_known() {
    let whole = written(vec![normal(0x1000, 1), processor(SNP, vmsa())]);
    let frame = |bytes: Vec<u8>| match Igvm::parse(bytes) {
        Err(NotStartable::Frame(bad)) => bad,
        other => panic!("{other:?}"),
    };
    let changed = |at: usize, byte: u8| {
        let mut file = whole.clone();
        file[at] = byte;
        file
    };
    assert_eq!(frame(whole[..whole.len() - 1].to_vec()), BadFrame::Length);
    assert_eq!(frame(whole[..10].to_vec()), BadFrame::Length);
    assert_eq!(frame(Vec::new()), BadFrame::Length);
    assert_eq!(frame(changed(4, 3)), BadFrame::Unknown);
    assert_eq!(frame(changed(30, 0xee)), BadFrame::Checksum);
    // The headers would end beyond all numbers.
    let mut beyond = changed(11, 0xff);
    beyond[15] = 0xff;
    assert_eq!(frame(beyond), BadFrame::Length);
    let mut cut = raw(&[(0x107, vec![0; 8])]);
    cut[28] = 9;
    assert_eq!(frame(sealed(cut)), BadFrame::Header);
}

proptest! {
    #[test]
    fn whatever_the_headers_are_nothing_breaks_and_nothing_is_twice(
        place in 0usize..600, bytes in proptest::collection::vec(any::<u8>(), 1..12),
    ) {
        let mut file = written(vec![
            area(1, PAGE),
            IgvmDirectiveHeader::MemoryMap(at(1, 0)),
            normal(0x1000, 1),
            normal(0x2000, 2),
            insert(1, 0x8000),
            processor(SNP, vmsa()),
        ]);
        let headers = u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
        let start = 24 + place % headers;
        let end = (start + bytes.len()).min(24 + headers);
        file[start..end].copy_from_slice(&bytes[..end - start]);
        if let Ok(igvm) = Igvm::parse(sealed(file)) {
            let dram = [range(0, 0x10_0000)];
            for (index, piece) in igvm.pieces().iter().enumerate() {
                let later = &igvm.pieces()[index + 1..];
                prop_assert!(!later.iter().any(|other| other.range.overlaps(piece.range)));
                if let Ok(bytes) = igvm.bytes(piece, &told(&dram, "")) {
                    prop_assert!(bytes.len() as u64 <= piece.range.bytes());
                }
            }
        }
    }
}
