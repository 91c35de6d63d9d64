//! The two states in which a boot processor can be entered, and the segments of each.

use kvm_bindings::{kvm_segment, kvm_sregs};

/// 64-bit mode with paging on, flat segments, interrupts off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongMode {
    /// The first instruction.
    pub entry: u64,
    /// What `rsi` holds.
    pub argument: u64,
    /// Where the top page table is.
    pub page_tables: u64,
    /// Where [`GDT`] is.
    pub gdt: u64,
}

/// 32-bit protected mode, paging off, flat segments, interrupts off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtectedMode {
    /// The first instruction.
    pub entry: u32,
    /// What `ebx` holds.
    pub argument: u32,
}

/// The descriptors that a processor in [`LongMode`] has loaded: code at selector 0x10, data at 0x18.
pub const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// The offset of the last byte of [`GDT`].
const GDT_LIMIT: u16 = 31;
const _: () = assert!(GDT_LIMIT as usize + 1 == size_of_val(&GDT));

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;

// Types of segments (Intel SDM, 3.4.5.1 and 3.5).
const EXECUTE_READ_ACCESSED: u8 = 0xb;
const READ_WRITE_ACCESSED: u8 = 0x3;
const BUSY_TASK_STATE: u8 = 0xb;

const CR0_PROTECTED: u64 = 1 << 0;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;

/// Width of the code that a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Bits32,
    Bits64,
}

impl LongMode {
    /// Puts the registers of `registers` into this state.
    pub(super) fn apply(self, registers: &mut kvm_sregs) {
        registers.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE | CR0_PAGING;
        registers.cr3 = self.page_tables;
        registers.cr4 = CR4_PHYSICAL_ADDRESS_EXTENSION;
        registers.efer = EFER_LONG_MODE | EFER_LONG_MODE_ACTIVE;
        registers.gdt.base = self.gdt;
        registers.gdt.limit = GDT_LIMIT;
        segments(registers, Code::Bits64);
    }
}

impl ProtectedMode {
    /// Puts the registers of `registers` into this state.
    pub(super) fn apply(self, registers: &mut kvm_sregs) {
        registers.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE;
        registers.cr4 = 0;
        registers.efer = 0;
        segments(registers, Code::Bits32);
    }
}

fn segments(registers: &mut kvm_sregs, code: Code) {
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    registers.cs = kvm_segment {
        selector: CODE_SELECTOR,
        type_: EXECUTE_READ_ACCESSED,
        db: u8::from(code == Code::Bits32),
        l: u8::from(code == Code::Bits64),
        ..flat
    };
    let data = kvm_segment {
        selector: DATA_SELECTOR,
        type_: READ_WRITE_ACCESSED,
        db: 1,
        ..flat
    };
    registers.ds = data;
    registers.es = data;
    registers.fs = data;
    registers.gs = data;
    registers.ss = data;
    // Processors of Intel are not entered without a task state, even if nothing uses it.
    registers.tr = kvm_segment {
        limit: 0x67,
        type_: BUSY_TASK_STATE,
        present: 1,
        ..Default::default()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The descriptor that a segment register would have been loaded from.
    fn descriptor(segment: kvm_segment) -> u64 {
        let limit = u64::from(segment.limit >> 12);
        let access = u64::from(segment.type_) | u64::from(segment.s) << 4 | 1 << 7;
        let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | 1 << 3;
        limit & 0xffff | access << 40 | (limit >> 16) << 48 | flags << 52
    }

    #[test]
    fn the_descriptors_in_memory_are_those_in_the_registers() {
        let mut registers = kvm_sregs::default();
        let state = LongMode {
            entry: 0x100_0200,
            argument: 0x7000,
            page_tables: 0x9000,
            gdt: 0x500,
        };
        state.apply(&mut registers);
        assert_eq!(descriptor(registers.cs), GDT[2]);
        assert_eq!(descriptor(registers.ss), GDT[3]);
        assert_eq!(usize::from(registers.cs.selector), 2 * size_of::<u64>());
        assert_eq!(usize::from(registers.ds.selector), 3 * size_of::<u64>());
        assert_eq!((registers.gdt.base, registers.gdt.limit), (0x500, 31));
        assert_eq!((registers.cr3, registers.efer), (0x9000, 0x500));
    }

    #[test]
    fn protected_mode_has_no_paging_and_32_bit_code() {
        let mut registers = kvm_sregs::default();
        let state = ProtectedMode {
            entry: 0x100_0000,
            argument: 0x6000,
        };
        state.apply(&mut registers);
        assert_eq!((registers.cr0, registers.cr4, registers.efer), (0x11, 0, 0));
        assert_eq!((registers.cs.l, registers.cs.db), (0, 1));
    }
}
