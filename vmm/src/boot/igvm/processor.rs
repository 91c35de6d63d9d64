//! How the first processor of an IGVM guest starts: its VMSA, as far as KVM can be told.
//!
//! KVM makes the VMSA itself, from registers that it is given, and has it measured at one address. So what the file
//! says has to be what KVM can be told, and for the rest what KVM writes anyway (`sev_es_sync_vmsa` of Linux).
//! Places are those of the APM, volume 2, table B-4.

use std::ops::Range;

use iommu::Gpa;

#[cfg(target_arch = "x86_64")]
use kvm::x86_64::{Registers, Segment};

use crate::boot::segment::Page;

/// Where KVM has VMSAs measured: the last page of 48 bits.
const MEASURED_AT: Gpa = Gpa::new(0xffff_ffff_f000);

/// Segments: ES, CS, SS, DS, FS, GS; then GDTR, LDTR, IDTR, TR. 16 bytes each.
const SEGMENTS: usize = 10;
const GDTR: usize = 6;
const IDTR: usize = 8;
const EFER: usize = 0xd0;
const CR4: usize = 0x148;
#[cfg(target_arch = "x86_64")]
const CR3: usize = 0x150;
const CR0: usize = 0x158;
const RFLAGS: usize = 0x170;
const RIP: usize = 0x178;
const RSP: usize = 0x1d8;
const RAX: usize = 0x1f8;
const CR2: usize = 0x240;
/// RCX, RDX and RBX; then RBP, RSI, RDI and R8 to R15.
const RCX: usize = 0x308;
const RBP: usize = 0x328;

/// What KVM can be told besides segments.
const GIVEN: [Range<usize>; 8] = [
    EFER..EFER + 8,
    CR4..CR0 + 8,
    RFLAGS..RIP + 8,
    RSP..RSP + 8,
    RAX..RAX + 8,
    CR2..CR2 + 8,
    RCX..RCX + 3 * 8,
    RBP..RBP + 11 * 8,
];

/// What else is not zero: DR7, DR6, PAT, that it is an SNP guest, XCR0, MXCSR and the x87 control word.
const FIXED: [(usize, u64); 7] = [
    (0x160, 0x400),
    (0x168, 0xffff_0ff0),
    (0x268, 0x0007_0406_0007_0406),
    (0x3b0, 1),
    (0x3e8, 1),
    (0x408, 0x1f80),
    (0x410, 0x37f),
];

/// KVM has it set in every guest.
const EFER_SVM: u64 = 1 << 12;
const CR4_MACHINE_CHECK: u64 = 1 << 6;
/// KVM has them clear in every guest.
const CR0_CACHE_OFF: u64 = 0b11 << 29;

/// The processor starts in a way that KVM cannot be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unlike {
    /// Something is not what KVM makes it.
    #[error(
        "its processor starts with another value at offset {0:#x} of its VMSA than KVM gives it"
    )]
    Field(usize),
    /// It is measured elsewhere.
    #[error("its VMSA is at {0}, and KVM has it measured at {MEASURED_AT}")]
    Place(Gpa),
    /// It is not the first one.
    #[error("it says how processor {0} starts, and KVM can be told of the first only")]
    Index(u16),
}

/// The first processor of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor(Box<Page>);

impl Processor {
    /// Reads the VMSA of processor `index`, which is to be measured at `at`.
    ///
    /// # Errors
    /// When KVM would start it otherwise.
    pub(super) fn read(index: u16, at: Gpa, page: &Page) -> Result<Self, Unlike> {
        if index != 0 {
            return Err(Unlike::Index(index));
        }
        if at != MEASURED_AT {
            return Err(Unlike::Place(at));
        }
        let mut rest = *page;
        for (number, segment) in rest.chunks_exact_mut(16).take(SEGMENTS).enumerate() {
            match number {
                // A base and a limit of 16 bits.
                GDTR | IDTR => segment.get_mut(4..6).unwrap_or_default().fill(0),
                // Attributes have 12 bits.
                _ => {
                    segment.get_mut(..3).unwrap_or_default().fill(0);
                    segment.get_mut(4..8).unwrap_or_default().fill(0);
                    if let Some(upper) = segment.get_mut(3) {
                        *upper &= 0xf0;
                    }
                }
            }
            segment.get_mut(8..).unwrap_or_default().fill(0);
        }
        for given in GIVEN {
            rest.get_mut(given).unwrap_or_default().fill(0);
        }
        for (at, value) in FIXED {
            match at_of(&rest, at) == value {
                true => put(&mut rest, at, 0),
                false => return Err(Unlike::Field(at)),
            }
        }
        match rest.iter().position(|byte| *byte != 0) {
            Some(at) => Err(Unlike::Field(at)),
            None => Ok(Self(Box::new(*page))),
        }
    }

    /// The page that is measured: what KVM makes of the registers.
    #[must_use]
    pub fn measured(&self) -> Page {
        let mut page = *self.0;
        let long = |at| at_of(&self.0, at);
        put(&mut page, EFER, long(EFER) | EFER_SVM);
        put(&mut page, CR4, long(CR4) | CR4_MACHINE_CHECK);
        put(&mut page, CR0, long(CR0) & !CR0_CACHE_OFF);
        page
    }

    /// What KVM is told.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn registers(&self) -> Registers {
        let long = |at| at_of(&self.0, at);
        let segment = |number: usize| {
            let at = number * 16;
            let [selector, attributes, limit_low, limit_high] = words(long(at));
            Segment {
                selector,
                attributes,
                limit: u32::from(limit_low) | u32::from(limit_high) << 16,
                base: long(at + 8),
            }
        };
        let [rcx, rdx, rbx] = [0, 1, 2].map(|number| long(RCX + number * 8));
        let [rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|number| long(RBP + number * 8));
        Registers {
            general: [
                long(RAX),
                rbx,
                rcx,
                rdx,
                rsi,
                rdi,
                long(RSP),
                rbp,
                r8,
                r9,
                r10,
                r11,
                r12,
                r13,
                r14,
                r15,
            ],
            rip: long(RIP),
            rflags: long(RFLAGS),
            segments: [0, 1, 2, 3, 4, 5, 7, 9].map(segment),
            tables: [GDTR, IDTR].map(segment),
            cr0: long(CR0),
            cr2: long(CR2),
            cr3: long(CR3),
            cr4: long(CR4),
            // KVM sets it by itself, and takes it from nobody.
            efer: long(EFER) & !EFER_SVM,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn words(number: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
}

/// All places are in the page.
fn at_of(page: &Page, at: usize) -> u64 {
    super::headers::long(page, at).unwrap_or_default()
}

fn put(page: &mut Page, at: usize, value: u64) {
    if let Some(place) = page.get_mut(at..at.saturating_add(8)) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}
