//! A virtual processor: what is the same on every architecture.

mod exit;
mod gave_up;
mod kick;
mod run_page;

use std::io;
use std::sync::Arc;

use hostcall::gate;
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::arch;
use crate::cca::RealmAbi;
use crate::error::ioctl;
use crate::{Error, Vm, VmKind};

pub use exit::{Exit, Fault, SystemEvent};
pub use gave_up::{GaveUp, Instruction};
pub use kick::Kick;
pub(crate) use run_page::RunPage;

/// What runs a vCPU, by its name in the kernel.
const RUN: &str = "KVM_RUN";

/// One virtual processor of a [`Vm`]. How it starts, and its registers, are the architecture's.
pub struct Vcpu {
    fd: VcpuFd,
    page: Arc<RunPage>,
    kick: Kick,
    // Keeps the VM's memory slots, and what they name, while this can run.
    vm: Vm,
}

impl Vcpu {
    /// Adds a processor to `vm`, which the architecture has yet to set up.
    pub(crate) fn add(vm: &Vm, index: u32) -> Result<Self, Error> {
        let fd = ioctl("KVM_CREATE_VCPU", "create a vCPU", || {
            vm.fd().create_vcpu(index.into())
        })?;
        let page = Arc::new(RunPage::map(&fd)?);
        let kick = Kick::new(Arc::clone(&page))?;
        Ok(Self {
            fd,
            page,
            kick,
            vm: vm.clone(),
        })
    }

    /// The vCPU's file, for what the architecture asks of it.
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Has the RMM take the vCPU with the registers that it has now, where it has to be told. After all
    /// of the VM's content was loaded.
    ///
    /// # Errors
    /// When KVM or the RMM refuse.
    pub fn finalize(&self) -> Result<(), Error> {
        match needs_rec(&self.vm) {
            true => arch::finalize_rec(&self.fd),
            false => Ok(()),
        }
    }

    /// Whether the guest keeps its registers to itself: nobody here reads or writes them once it runs.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        match self.vm.kind() {
            VmKind::Realm(_) | VmKind::Snp | VmKind::Td => true,
            VmKind::Plain | VmKind::Protected | VmKind::SwProtected => false,
        }
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
        let run_error = run_error(self.vm.kind());
        gate(RUN).map_err(&run_error)?;
        let is_realm = matches!(self.vm.kind(), VmKind::Realm(_));
        let exit = self.fd.run();
        if is_realm && exit.is_ok() {
            self.vm.note_run();
        }
        match exit {
            // `KVM_EXIT_SHUTDOWN` since series v8, `KVM_EXIT_UNKNOWN` before: `handle_rec_exit()`.
            Ok(VcpuExit::Shutdown | VcpuExit::Unknown) if is_realm => Ok(Exit::RealmOff),
            Ok(exit) => Ok(Exit::decode(exit, &self.page)),
            Err(errno) => match errno.errno() {
                libc::EINTR | libc::EAGAIN => {
                    self.kick.clear();
                    Ok(Exit::Interrupted)
                }
                libc::EFAULT | libc::EHWPOISON => {
                    if is_realm {
                        self.vm.note_run();
                    }
                    Ok(Exit::MemoryFault(None))
                }
                // In later forms it is, at first, what the RMM says to the activation.
                libc::ENXIO if needs_rec(&self.vm) || (is_realm && self.vm.has_run()) => {
                    Ok(Exit::Failed(GaveUp::Realm))
                }
                _ => Err(run_error(errno.into())),
            },
        }
    }
}

/// Whether the vCPUs of `vm` have to be made known to the RMM, one by one.
pub(crate) fn needs_rec(vm: &Vm) -> bool {
    vm.kind() == VmKind::Realm(RealmAbi::EnableCap)
}

fn run_error(kind: VmKind) -> impl Fn(io::Error) -> Error {
    let operation = match kind {
        // The first run does more than the others.
        VmKind::Realm(RealmAbi::EarlyPopulate | RealmAbi::Populate | RealmAbi::PrivateFiles) => {
            "activate a Realm, or run a vCPU of it"
        }
        _ => "run a vCPU",
    };
    move |source| Error::Ioctl {
        operation,
        call: RUN,
        source,
    }
}
