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

impl Vmsa {
    /// The page.
    #[must_use]
    pub fn to_page(&self) -> Page {
        let (base, offset) = (self.start & 0xffff_0000, self.start & 0xffff);
        let code = Segment(0xf000, 0x9b, LIMIT, base.into());
        // ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR.
        let segments = [DATA, code, DATA, DATA, DATA, DATA, TABLE, LDT, TABLE, TASK];
        let numbers: [(usize, u64); 13] = [
            // EFER: KVM has SVM enabled.
            (0xd0, 0x1000),
            // CR4: KVM has machine checks enabled.
            (0x148, 0x40),
            // CR0.
            (0x158, 0x10),
            // DR7 and DR6.
            (0x160, 0x400),
            (0x168, 0xffff_0ff0),
            // RFLAGS and RIP.
            (0x170, 0x2),
            (0x178, offset.into()),
            // G_PAT.
            (0x268, 0x0007_0406_0007_0406),
            // RDX.
            (0x310, self.signature.into()),
            (0x3b0, self.features),
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
        for (at, number) in numbers {
            page[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        page
    }
}
