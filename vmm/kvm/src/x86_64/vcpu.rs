//! A virtual processor of x86-64, with its local APIC in the kernel.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;

use super::{Cpuid, LongMode, Processors, ProtectedMode, Registers};
use crate::error::ioctl;
use crate::{Error, Vcpu, Vm};

/// Bit 1 of the flags is always set.
const FLAGS: u64 = 1 << 1;

const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1 << 0;
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

impl Vcpu {
    /// Adds a processor to `vm`, which has its interrupt controllers. Index 0 comes first and is the
    /// one that boots; the others wait for its start-up message.
    ///
    /// # Errors
    /// When the VM has it already, or the host has no more.
    pub fn create(
        vm: &Vm,
        index: u32,
        supported: &Cpuid,
        processors: Processors,
    ) -> Result<Self, Error> {
        let vcpu = Self::add(vm, index)?;
        vcpu.set_cpuid(supported, index, processors)?;
        // What firmware would have set: without it all memory counts as not cacheable.
        vcpu.set_msrs(&[
            (MISC_ENABLE, FAST_STRINGS),
            (MTRR_DEFAULT_TYPE, MTRR_ENABLE | WRITE_BACK),
        ])?;
        Ok(vcpu)
    }

    /// Has the processor start in 64-bit mode.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn enter_long_mode(&self, state: LongMode) -> Result<(), Error> {
        self.set_state(|registers| state.apply(registers))?;
        self.set_registers(&kvm_regs {
            rip: state.entry,
            rsi: state.argument,
            rflags: FLAGS,
            ..Default::default()
        })
    }

    /// Has the processor start in protected mode.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn enter_protected_mode(&self, state: ProtectedMode) -> Result<(), Error> {
        self.set_state(|registers| state.apply(registers))?;
        self.set_registers(&kvm_regs {
            rip: state.entry.into(),
            rbx: state.argument.into(),
            rflags: FLAGS,
            ..Default::default()
        })
    }

    /// Has the processor start with these registers.
    ///
    /// # Errors
    /// When KVM refuses: they may contradict each other.
    pub fn enter(&self, registers: &Registers) -> Result<(), Error> {
        self.set_state(|state| registers.apply(state))?;
        self.set_registers(&registers.general())
    }

    /// The program counter.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn pc(&self) -> Result<u64, Error> {
        let registers = ioctl("KVM_GET_REGS", "read the registers of a vCPU", || {
            self.fd().get_regs()
        })?;
        Ok(registers.rip)
    }

    fn set_state(&self, change: impl FnOnce(&mut kvm_sregs)) -> Result<(), Error> {
        let mut registers = ioctl("KVM_GET_SREGS", "read the state of a vCPU", || {
            self.fd().get_sregs()
        })?;
        change(&mut registers);
        ioctl("KVM_SET_SREGS", "set the state of a vCPU", || {
            self.fd().set_sregs(&registers)
        })
    }

    fn set_registers(&self, registers: &kvm_regs) -> Result<(), Error> {
        ioctl("KVM_SET_REGS", "write the registers of a vCPU", || {
            self.fd().set_regs(registers)
        })
    }

    fn set_msrs(&self, values: &[(u32, u64)]) -> Result<(), Error> {
        let entry = |&(index, data): &(u32, u64)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        let entries: Vec<_> = values.iter().map(entry).collect();
        let msrs = Msrs::from_entries(&entries);
        let msrs = msrs.map_err(|_| Error::Missing("room for registers of a vCPU"))?;
        let operation = "set a model-specific register of a vCPU";
        let set = ioctl("KVM_SET_MSRS", operation, || self.fd().set_msrs(&msrs))?;
        match set == values.len() {
            true => Ok(()),
            false => Err(Error::Missing(
                "model-specific register that every host has",
            )),
        }
    }
}

/// No processor of this architecture is an RMM's.
pub(crate) fn finalize_rec(_: &VcpuFd) -> Result<(), Error> {
    Err(Error::Missing("Realms"))
}
