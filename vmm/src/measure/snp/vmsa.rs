//! How a vCPU starts, as the page that the firmware measures.
//!
//! The state is the one after INIT (AMD64 Architecture Programmer's Manual, volume 2, table 14-1) with
//! what KVM sets by itself; places are those of table B-4 there, "VMSA layout".

use crate::boot::segment::Page;

/// A vCPU at its first instruction, in real mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vmsa {
    /// Where it starts: the code segment has the upper half, the instruction pointer the lower one.
    pub start: u32,
    /// Family, model and stepping as CPUID function 1 has them in EAX.
    pub signature: u32,
    /// `SEV_FEATURES`: bit 0 is set for every SNP guest.
    pub features: u64,
}

/// A segment register: selector, attributes, limit, base.
#[derive(Clone, Copy)]
struct Segment(u16, u16, u32, u64);

impl Segment {
    fn to_bytes(self) -> [u8; 16] {
        let Self(selector, attributes, limit, base) = self;
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&selector.to_le_bytes());
        bytes[2..4].copy_from_slice(&attributes.to_le_bytes());
        bytes[4..8].copy_from_slice(&limit.to_le_bytes());
        bytes[8..].copy_from_slice(&base.to_le_bytes());
        bytes
    }
}

/// Where the boot processor starts, whatever the firmware: the reset vector.
pub const RESET_VECTOR: u32 = 0xffff_fff0;

const LIMIT: u32 = 0xffff;
const DATA: Segment = Segment(0, 0x93, LIMIT, 0);
const TABLE: Segment = Segment(0, 0, LIMIT, 0);
const LDT: Segment = Segment(0, 0x82, LIMIT, 0);
const TASK: Segment = Segment(0, 0x8b, LIMIT, 0);

/// What KVM has in RDX of a processor that it has been told nothing about: the signature of a P6.
const UNTOLD_SIGNATURE: u64 = 0x600;

impl Vmsa {
    /// The page.
    #[must_use]
    pub fn to_page(&self) -> Page {
        let (base, offset) = (self.start & 0xffff_0000, self.start & 0xffff);
        let code = Segment(0xf000, 0x9b, LIMIT, base.into());
        // ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR.
        let segments = [DATA, code, DATA, DATA, DATA, DATA, TABLE, LDT, TABLE, TASK];
        let numbers = [
            (EFER, SVM),
            (CR4, MACHINE_CHECK),
            (CR0, EXTENSION_TYPE),
            (RIP, offset.into()),
            (RDX, self.signature.into()),
            (FEATURES, self.features),
        ];
        page(segments, &numbers)
    }

    /// A processor that KVM has made and nobody has told how to start, as each is but the first one: the guest
    /// starts it later, in a state of its own. `kvm_vcpu_reset()` and `init_vmcb()` of Linux: no segment counts as
    /// accessed, and it is reset before it has its CPUID.
    #[must_use]
    pub fn untold() -> Page {
        const DATA: Segment = Segment(0, 0x92, LIMIT, 0);
        const CODE: Segment = Segment(0xf000, 0x9a, LIMIT, 0xffff_0000);
        const TASK: Segment = Segment(0, 0x83, LIMIT, 0);
        let segments = [DATA, CODE, DATA, DATA, DATA, DATA, TABLE, LDT, TABLE, TASK];
        let numbers = [
            (EFER, SVM),
            (CR4, MACHINE_CHECK),
            (CR0, EXTENSION_TYPE),
            (RIP, 0xfff0),
            (RDX, UNTOLD_SIGNATURE),
            (FEATURES, SNP),
        ];
        page(segments, &numbers)
    }

    /// The first processor, as ccvm has it enter a kernel in 64-bit mode.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn in_long_mode(state: kvm::x86_64::LongMode) -> Page {
        const DATA: Segment = Segment(0x18, 0xc93, u32::MAX, 0);
        const CODE: Segment = Segment(0x10, 0xa9b, u32::MAX, 0);
        const TASK: Segment = Segment(0, 0x8b, 0x67, 0);
        const PROTECTED_PAGED: u64 = 1 << 31 | 1;
        const ADDRESS_EXTENSION: u64 = 1 << 5;
        const LONG_MODE_ACTIVE: u64 = 1 << 10 | 1 << 8;
        let descriptors = Segment(0, 0, 31, state.gdt);
        let segments = [
            DATA,
            CODE,
            DATA,
            DATA,
            DATA,
            DATA,
            descriptors,
            LDT,
            TABLE,
            TASK,
        ];
        let numbers = [
            (EFER, SVM | LONG_MODE_ACTIVE),
            (CR4, MACHINE_CHECK | ADDRESS_EXTENSION),
            (CR3, state.page_tables),
            (CR0, EXTENSION_TYPE | PROTECTED_PAGED),
            (RIP, state.entry),
            (RSI, state.argument),
            (FEATURES, SNP),
        ];
        page(segments, &numbers)
    }
}

const EFER: usize = 0xd0;
const CR4: usize = 0x148;
#[cfg(target_arch = "x86_64")]
const CR3: usize = 0x150;
const CR0: usize = 0x158;
const RIP: usize = 0x178;
const RDX: usize = 0x310;
#[cfg(target_arch = "x86_64")]
const RSI: usize = 0x330;
const FEATURES: usize = 0x3b0;

/// KVM has SVM enabled in EFER, and machine checks in CR4, of every guest.
const SVM: u64 = 1 << 12;
const MACHINE_CHECK: u64 = 1 << 6;
const EXTENSION_TYPE: u64 = 1 << 4;
/// `SEV_FEATURES` of every SNP guest.
const SNP: u64 = 1;

/// The page with these and with what every processor starts with.
fn page(segments: [Segment; 10], numbers: &[(usize, u64)]) -> Page {
    let always: [(usize, u64); 7] = [
        // DR7 and DR6.
        (0x160, 0x400),
        (0x168, 0xffff_0ff0),
        // RFLAGS.
        (0x170, 0x2),
        // G_PAT.
        (0x268, 0x0007_0406_0007_0406),
        // XCR0.
        (0x3e8, 0x1),
        // MXCSR and the x87 control word.
        (0x408, 0x1f80),
        (0x410, 0x37f),
    ];
    let mut page = [0; 4096];
    for (place, segment) in page.chunks_exact_mut(16).zip(segments) {
        place.copy_from_slice(&segment.to_bytes());
    }
    for (at, number) in always.iter().chain(numbers) {
        page[*at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    page
}
