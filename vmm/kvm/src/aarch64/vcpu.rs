//! A virtual processor.

use std::sync::Arc;

use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_CAP_ARM_INJECT_EXT_DABT,
    KVM_CAP_ARM_NISV_TO_USER, kvm_enable_cap, kvm_vcpu_events, kvm_vcpu_init,
};
use kvm_ioctls::VcpuFd;

use super::run_page::RunPage;
use super::{Exit, Kick, register};
use crate::{Error, Vm};

/// How a vCPU starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// Running at its program counter.
    On,
    /// Waiting for another vCPU's PSCI `CPU_ON`.
    Off,
}

/// One virtual processor of a [`Vm`], with PSCI 0.2 and later in the kernel.
pub struct Vcpu {
    fd: VcpuFd,
    page: Arc<RunPage>,
    kick: Kick,
    // Keeps the VM's memory slots, and what they name, while this can run.
    _vm: Vm,
}

impl Vm {
    /// Has loads and stores that KVM cannot describe exit as [`Exit::NoSyndrome`], where KVM can;
    /// else they end the run with an error. Returns whether it can.
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
            self.fd()
                .enable_cap(&capability)
                .map_err(Error::ioctl("report accesses without syndrome"))?;
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
        let fd = vm
            .fd()
            .create_vcpu(index.into())
            .map_err(Error::ioctl("create a vCPU"))?;
        let mut init = kvm_vcpu_init::default();
        vm.fd()
            .get_preferred_target(&mut init)
            .map_err(Error::ioctl("name the kind of vCPU that this host runs"))?;
        init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
        if power == PowerState::Off {
            init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
        }
        fd.vcpu_init(&init)
            .map_err(Error::ioctl("initialise a vCPU"))?;
        let page = Arc::new(RunPage::map(&fd)?);
        let kick = Kick::new(Arc::clone(&page))?;
        Ok(Self {
            fd,
            page,
            kick,
            _vm: vm.clone(),
        })
    }

    /// A handle by which another thread interrupts [`Vcpu::run`].
    #[must_use]
    pub fn kick(&self) -> Kick {
        self.kick.clone()
    }

    /// Runs guest code until something needs the caller.
    ///
    /// # Errors
    /// When KVM cannot run the vCPU.
    pub fn run(&mut self) -> Result<Exit<'_>, Error> {
        match self.fd.run() {
            Ok(exit) => Ok(Exit::decode(exit, &self.page)),
            Err(errno) => match errno.errno() {
                libc::EINTR | libc::EAGAIN => {
                    self.kick.clear();
                    Ok(Exit::Interrupted)
                }
                libc::EFAULT | libc::EHWPOISON => Ok(Exit::MemoryFault(None)),
                _ => Err(Error::ioctl("run a vCPU")(errno)),
            },
        }
    }

    /// Makes the access that exited fail in the guest: a synchronous external abort.
    ///
    /// # Errors
    /// When KVM cannot (`KVM_CAP_ARM_INJECT_EXT_DABT`, Linux 5.5).
    pub fn inject_external_abort(&self) -> Result<(), Error> {
        let mut events = kvm_vcpu_events::default();
        events.exception.ext_dabt_pending = 1;
        self.fd
            .set_vcpu_events(&events)
            .map_err(Error::ioctl("inject an external abort"))
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
        self.fd
            .get_one_reg(id, &mut value)
            .map_err(Error::ioctl("read a register of a vCPU"))?;
        Ok(u64::from_le_bytes(value))
    }

    fn set_register(&self, id: u64, value: u64) -> Result<(), Error> {
        self.fd
            .set_one_reg(id, &value.to_le_bytes())
            .map_err(Error::ioctl("write a register of a vCPU"))?;
        Ok(())
    }
}
