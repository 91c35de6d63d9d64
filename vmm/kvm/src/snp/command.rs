//! One sub-command of `KVM_MEMORY_ENCRYPT_OP`.

use std::io;

use hostcall::gate;
use kvm_bindings::{
    kvm_sev_cmd, sev_cmd_id_KVM_SEV_INIT2, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH,
    sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
};

use super::device::SecurityProcessor;
use crate::{Error, Vm};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Init,
    Start,
    Update,
    Finish,
}

impl Command {
    fn id(self) -> u32 {
        match self {
            Self::Init => sev_cmd_id_KVM_SEV_INIT2,
            Self::Start => sev_cmd_id_KVM_SEV_SNP_LAUNCH_START,
            Self::Update => sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
            Self::Finish => sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH,
        }
    }

    /// By its name in the kernel.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Init => "KVM_SEV_INIT2",
            Self::Start => "KVM_SEV_SNP_LAUNCH_START",
            Self::Update => "KVM_SEV_SNP_LAUNCH_UPDATE",
            Self::Finish => "KVM_SEV_SNP_LAUNCH_FINISH",
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Init => "make an SNP guest",
            Self::Start => "begin to launch an SNP guest",
            Self::Update => "load a part of an SNP guest",
            Self::Finish => "finish the launch of an SNP guest",
        }
    }
}

/// Gives `command` with its argument, which the kernel may write to.
pub(super) fn give<T>(
    vm: &Vm,
    processor: &SecurityProcessor,
    command: Command,
    argument: &mut T,
) -> Result<(), Error> {
    let mut request = kvm_sev_cmd {
        id: command.id(),
        data: std::ptr::from_mut(argument).expose_provenance() as u64,
        sev_fd: processor.number(),
        ..Default::default()
    };
    let call = command.name();
    let done = gate(call).and_then(|()| {
        let done = vm.fd().encrypt_op_sev(&mut request);
        done.map_err(io::Error::from)
    });
    let operation = command.operation();
    done.map_err(|source| {
        Error::below_kvm(
            operation,
            call,
            "the security processor",
            request.error.into(),
            source,
        )
    })
}
