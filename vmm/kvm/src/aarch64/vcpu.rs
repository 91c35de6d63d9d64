//! A virtual processor of arm64, with PSCI 0.2 and later in the kernel.

use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_CAP_ARM_INJECT_EXT_DABT,
    KVM_CAP_ARM_NISV_TO_USER, kvm_enable_cap, kvm_vcpu_events, kvm_vcpu_init,
};
use kvm_ioctls::VcpuFd;

use super::register;
use crate::error::ioctl;
use crate::vcpu::needs_rec;
use crate::{Error, Vcpu, Vm};

/// `KVM_ARM_VCPU_REC`: a vCPU that the RMM runs. A feature, and what is finalized, of
/// [`RealmAbi::EnableCap`](crate::cca::RealmAbi::EnableCap).
const REC: u32 = 8;

/// How a vCPU starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// Running at its program counter.
    On,
    /// Waiting for another vCPU's PSCI `CPU_ON`.
    Off,
}

impl Vm {
    /// Has loads and stores that KVM cannot describe exit as
    /// [`OwnExit::NoSyndrome`](super::OwnExit::NoSyndrome), where KVM can; else they end the run with an
    /// error. Returns whether it can.
    ///
    /// # Errors
    /// When KVM has the capability but refuses it.
    pub fn exit_without_syndrome(&self) -> Result<bool, Error> {
        let able = self.extension(KVM_CAP_ARM_NISV_TO_USER) > 0
            && self.extension(KVM_CAP_ARM_INJECT_EXT_DABT) > 0;
        if able {
            let capability = kvm_enable_cap {
                cap: KVM_CAP_ARM_NISV_TO_USER,
                ..Default::default()
            };
            ioctl("KVM_ENABLE_CAP", "report accesses without syndrome", || {
                self.fd().enable_cap(&capability)
            })?;
        }
        Ok(able)
    }
}

impl Vcpu {
    /// Adds a processor to `vm`. Index 0 comes first.
    ///
    /// # Errors
    /// When the VM has it already, or the host has no more.
    pub fn create(vm: &Vm, index: u32, power: PowerState) -> Result<Self, Error> {
        let vcpu = Self::add(vm, index)?;
        let mut init = kvm_vcpu_init::default();
        let target = "name the kind of vCPU that this host runs";
        ioctl("KVM_ARM_PREFERRED_TARGET", target, || {
            vm.fd().get_preferred_target(&mut init)
        })?;
        init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
        if needs_rec(vm) {
            init.features[0] |= 1 << REC;
        }
        if power == PowerState::Off {
            init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
        }
        ioctl("KVM_ARM_VCPU_INIT", "initialise a vCPU", || {
            vcpu.fd().vcpu_init(&init)
        })?;
        Ok(vcpu)
    }

    /// Makes the access that exited fail in the guest: a synchronous external abort.
    ///
    /// # Errors
    /// When KVM cannot (`KVM_CAP_ARM_INJECT_EXT_DABT`, Linux 5.5).
    pub fn inject_external_abort(&self) -> Result<(), Error> {
        let mut events = kvm_vcpu_events::default();
        events.exception.ext_dabt_pending = 1;
        ioctl("KVM_SET_VCPU_EVENTS", "inject an external abort", || {
            self.fd().set_vcpu_events(&events)
        })
    }

    /// General-purpose register x`n`.
    ///
    /// # Errors
    /// When there is none (`n` > 30), or KVM refuses.
    pub fn x(&self, n: u8) -> Result<u64, Error> {
        self.register(register::x(n).ok_or(Error::NoRegister(n))?)
    }

    /// Sets general-purpose register x`n`.
    ///
    /// # Errors
    /// As for [`Vcpu::x`].
    pub fn set_x(&self, n: u8, value: u64) -> Result<(), Error> {
        self.set_register(register::x(n).ok_or(Error::NoRegister(n))?, value)
    }

    /// The arguments of an SMCCC call: x1 and the `N` - 1 registers after it; `N` is at most 17.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn smccc_arguments<const N: usize>(&self) -> Result<[u64; N], Error> {
        const { assert!(N <= 17) };
        let mut arguments = [0; N];
        for (n, argument) in (1..).zip(&mut arguments) {
            *argument = self.x(n)?;
        }
        Ok(arguments)
    }

    /// Answers an SMCCC call: x0 and the `N` - 1 registers after it; `N` is at most 18.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn set_smccc_results<const N: usize>(&self, results: [u64; N]) -> Result<(), Error> {
        const { assert!(N <= 18) };
        (0..)
            .zip(results)
            .try_for_each(|(n, result)| self.set_x(n, result))
    }

    /// The program counter.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn pc(&self) -> Result<u64, Error> {
        self.register(register::PC)
    }

    /// Sets the program counter.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn set_pc(&self, value: u64) -> Result<(), Error> {
        self.set_register(register::PC, value)
    }

    /// The processor state.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn pstate(&self) -> Result<u64, Error> {
        self.register(register::PSTATE)
    }

    /// Sets the processor state.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn set_pstate(&self, value: u64) -> Result<(), Error> {
        self.set_register(register::PSTATE, value)
    }

    /// The affinity bits of `MPIDR_EL1`, by which a device tree names the processor.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn affinity(&self) -> Result<u64, Error> {
        const AFFINITY: u64 = 0xff_00ff_ffff;
        Ok(self.register(register::MPIDR)? & AFFINITY)
    }

    fn register(&self, id: u64) -> Result<u64, Error> {
        let mut value = [0; 8];
        ioctl("KVM_GET_ONE_REG", "read a register of a vCPU", || {
            self.fd().get_one_reg(id, &mut value)
        })?;
        Ok(u64::from_le_bytes(value))
    }

    fn set_register(&self, id: u64, value: u64) -> Result<(), Error> {
        ioctl("KVM_SET_ONE_REG", "write a register of a vCPU", || {
            self.fd().set_one_reg(id, &value.to_le_bytes())
        })?;
        Ok(())
    }
}

/// Has the RMM take a vCPU of a Realm.
pub(crate) fn finalize_rec(vcpu: &VcpuFd) -> Result<(), Error> {
    let feature = REC.cast_signed();
    ioctl(
        "KVM_ARM_VCPU_FINALIZE",
        "finalize a vCPU of a Realm",
        || vcpu.vcpu_finalize(&feature),
    )
}
