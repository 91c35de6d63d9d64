//! `KVM_GET_ONE_REG` ids of the registers that ccvm touches (`arch/arm64/include/uapi/asm/kvm.h`).

use std::mem::offset_of;

use kvm_bindings::{
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG, KVM_REG_SIZE_U64, kvm_regs, user_pt_regs,
};

/// A 64-bit core register, by its offset in `struct kvm_regs` in units of 32 bits.
const fn core(offset: usize) -> u64 {
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE as u64 | (offset / size_of::<u32>()) as u64
}

/// The program counter.
pub(super) const PC: u64 = core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, pc));

/// The processor state.
pub(super) const PSTATE: u64 = core(offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, pstate));

/// `MPIDR_EL1`: op0 3, op1 0, CRn 0, CRm 0, op2 5.
pub(super) const MPIDR: u64 =
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG as u64 | 3 << 14 | 5;

/// General-purpose register `n`, or `None` beyond x30.
pub(super) const fn x(n: u8) -> Option<u64> {
    if n > 30 {
        return None;
    }
    let base = offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, regs);
    Some(core(base + n as usize * size_of::<u64>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_kernel_header() {
        assert_eq!(x(0), Some(0x6030_0000_0010_0000));
        assert_eq!(x(17), Some(0x6030_0000_0010_0022));
        assert_eq!(x(31), None);
        assert_eq!(PC, 0x6030_0000_0010_0040);
        assert_eq!(PSTATE, 0x6030_0000_0010_0042);
        assert_eq!(MPIDR, 0x6030_0000_0013_c005);
    }
}
