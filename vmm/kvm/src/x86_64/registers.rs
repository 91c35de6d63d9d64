//! Any state in which a boot processor can be entered: what `KVM_SET_SREGS` and `KVM_SET_REGS` take of it.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

/// A segment register, or a table of descriptors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its selector; a table has none.
    pub selector: u16,
    /// As a VMCB has them (APM, volume 2, 15.5.1): bits 3:0 type, 4 S, 6:5 DPL, 7 P, 8 AVL, 9 L, 10 D/B, 11 G.
    pub attributes: u16,
    /// The offset of its last byte. Of a table: 16 bits.
    pub limit: u32,
    /// Its first byte.
    pub base: u64,
}

/// Registers at the first instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15.
    pub general: [u64; 16],
    /// The first instruction.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    pub segments: [Segment; 8],
    /// GDTR, IDTR.
    pub tables: [Segment; 2],
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

impl Registers {
    /// Puts the special ones of `state` into this state.
    pub(super) fn apply(&self, state: &mut kvm_sregs) {
        let [es, cs, ss, ds, fs, gs, ldt, tr] = self.segments.map(Segment::to_kvm);
        let [gdt, idt] = self.tables.map(|table| kvm_dtable {
            base: table.base,
            limit: u16::try_from(table.limit).unwrap_or(u16::MAX),
            padding: [0; 3],
        });
        *state = kvm_sregs {
            cs,
            ds,
            es,
            fs,
            gs,
            ss,
            tr,
            ldt,
            gdt,
            idt,
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            efer: self.efer,
            // CR8, the local APIC's base and pending interrupts are as they were.
            ..*state
        };
    }

    /// The general ones.
    pub(super) fn general(&self) -> kvm_regs {
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = self.general;
        kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: self.rip,
            rflags: self.rflags,
        }
    }
}

impl Segment {
    fn to_kvm(self) -> kvm_segment {
        let field = |bit: u16, mask: u16| {
            // No field has more than four bits.
            u8::try_from(self.attributes >> bit & mask).unwrap_or_default()
        };
        let present = field(7, 1);
        kvm_segment {
            base: self.base,
            limit: self.limit,
            selector: self.selector,
            type_: field(0, 0xf),
            s: field(4, 1),
            dpl: field(5, 0b11),
            present,
            avl: field(8, 1),
            l: field(9, 1),
            db: field(10, 1),
            g: field(11, 1),
            unusable: 1 - present,
            padding: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_the_fields_of_a_segment() {
        let code = Segment {
            selector: 0x10,
            attributes: 0xafb,
            limit: u32::MAX,
            base: 0x1000,
        };
        let code = code.to_kvm();
        assert_eq!((code.type_, code.s, code.dpl, code.present), (0xb, 1, 3, 1));
        assert_eq!((code.avl, code.l, code.db, code.g), (0, 1, 0, 1));
        assert_eq!(
            (code.selector, code.limit, code.base),
            (0x10, u32::MAX, 0x1000)
        );
        assert_eq!(code.unusable, 0);
        assert_eq!(Segment::default().to_kvm().unusable, 1, "not present");
    }

    #[test]
    fn what_is_not_given_stays() {
        let mut state = kvm_sregs {
            apic_base: 0xfee0_0900,
            cr8: 3,
            cr4: 0x40,
            ..Default::default()
        };
        let registers = Registers {
            cr0: 0x10,
            tables: [Segment {
                limit: 0xffff,
                base: 7,
                ..Segment::default()
            }; 2],
            ..Registers::default()
        };
        registers.apply(&mut state);
        assert_eq!((state.apic_base, state.cr8), (0xfee0_0900, 3));
        assert_eq!((state.cr0, state.cr4), (0x10, 0));
        assert_eq!((state.gdt.limit, state.idt.base), (0xffff, 7));
    }
}
