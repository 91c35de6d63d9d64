//! A call as a line of text. Addresses of the process and descriptors, which differ from run to run,
//! are told by what they are.

use crate::files::Kind;
use crate::host::{Form, Host, u32_at, u64_at};
use crate::vm::VmState;
use crate::{Errno, call, process, realm, snp, tdx, x86};

impl Host {
    pub(crate) fn describe(
        &self,
        kind: Kind,
        request: u64,
        argument: u64,
    ) -> Result<String, Errno> {
        let file = match kind {
            Kind::Kvm => "kvm".to_owned(),
            Kind::SecurityProcessor => "sev".to_owned(),
            Kind::Vm(_) => "vm".to_owned(),
            Kind::Vcpu(_, index) => format!("vcpu{index}"),
            Kind::Device(_) => "device".to_owned(),
            Kind::GuestMemfd(_) => "guest_memfd".to_owned(),
        };
        let name = match call::name(request) {
            Some(name) => name.to_owned(),
            None => format!("{request:#x}"),
        };
        let details = self.details(kind, request, argument)?;
        Ok(format!("{file} {name} {details}").trim_end().to_owned())
    }

    fn details(&self, kind: Kind, request: u64, argument: u64) -> Result<String, Errno> {
        Ok(match request {
            call::CREATE_VM | call::CREATE_VCPU => format!("{argument:#x}"),
            call::CHECK_EXTENSION => argument.to_string(),
            call::SET_USER_MEMORY_REGION => {
                let bytes: [u8; 32] = process::copy_in(argument)?;
                let (slot, flags) = (u32_at(&bytes, 0), u32_at(&bytes, 4));
                format!("{slot} flags {flags} at {}", words(&bytes, &[8, 16]))
            }
            call::SET_USER_MEMORY_REGION2 => {
                let bytes: [u8; 160] = process::copy_in(argument)?;
                let (slot, flags) = (u32_at(&bytes, 0), u32_at(&bytes, 4));
                let at = words(&bytes, &[8, 16]);
                let file = self.ordinal(kind, u32_at(&bytes, 40));
                let offset = u64_at(&bytes, 32);
                format!("{slot} flags {flags} at {at} guest_memfd {file}+{offset:#x}")
            }
            call::SET_MEMORY_ATTRIBUTES => {
                let bytes: [u8; 32] = process::copy_in(argument)?;
                words(&bytes, &[0, 8, 16, 24])
            }
            call::SET_MEMORY_ATTRIBUTES2 => {
                let bytes: [u8; 128] = process::copy_in(argument)?;
                words(&bytes, &[0, 8, 16, 24])
            }
            call::CREATE_GUEST_MEMFD => {
                let bytes: [u8; 64] = process::copy_in(argument)?;
                words(&bytes, &[0, 8])
            }
            call::ENABLE_CAP => {
                let bytes: [u8; 104] = process::copy_in(argument)?;
                match u32_at(&bytes, 0) {
                    realm::CAPABILITY if self.vm_form(kind) == Some(Form::EnableCap) => {
                        let text = realm::describe(u64_at(&bytes, 8), u64_at(&bytes, 16))?;
                        format!("{} {text}", realm::CAPABILITY)
                    }
                    other => format!("{other} {}", words(&bytes, &[8, 16, 24, 32])),
                }
            }
            call::MEMORY_ENCRYPT_OP => match self.vm_form(kind) {
                Some(Form::Snp) => snp::describe(argument, |at| self.source(kind, at))?,
                _ => tdx::describe(argument, |at| self.source(kind, at))?,
            },
            call::ARM_RMI_POPULATE => {
                let bytes: [u8; 32] = process::copy_in(argument)?;
                let (at, source) = (words(&bytes, &[0, 8, 24]), u64_at(&bytes, 16));
                format!("{at} from {}", self.source(kind, source))
            }
            _ => return device_or_vcpu(request, argument),
        })
    }

    /// Which kind of VM a file is of.
    fn vm_form(&self, kind: Kind) -> Option<Form> {
        match kind {
            Kind::Vm(vm) | Kind::Vcpu(vm, _) => self.vms.get(vm).map(VmState::form),
            _ => None,
        }
    }

    /// Which of the VM's guest_memfds it is.
    fn ordinal(&self, kind: Kind, file: u32) -> String {
        let Kind::Vm(vm) = kind else {
            return "?".to_owned();
        };
        let files = self.vms.get(vm).map(|vm| &vm.files);
        let found = files.and_then(|files| {
            files
                .iter()
                .position(|made| u32::try_from(*made) == Ok(file))
        });
        found.map_or_else(|| "?".to_owned(), |ordinal| format!("#{ordinal}"))
    }

    /// The guest-physical address whose shared form an address of the process is.
    fn source(&self, kind: Kind, address: u64) -> String {
        let slots = match kind {
            Kind::Vm(vm) | Kind::Vcpu(vm, _) => self.vms.get(vm).map(|vm| vm.slots.values()),
            _ => None,
        };
        let found = slots.and_then(|mut slots| {
            slots.find(|slot| (slot.host..slot.host.saturating_add(slot.bytes)).contains(&address))
        });
        found.map_or_else(
            || "elsewhere".to_owned(),
            |slot| format!("{:#x}", address - slot.host + slot.at),
        )
    }
}

/// The details of a call at a device or a vCPU.
fn device_or_vcpu(request: u64, argument: u64) -> Result<String, Errno> {
    Ok(match request {
        call::CREATE_DEVICE => {
            let bytes: [u8; 12] = process::copy_in(argument)?;
            format!("type {} flags {}", u32_at(&bytes, 0), u32_at(&bytes, 8))
        }
        call::SET_DEVICE_ATTR => {
            let bytes: [u8; 24] = process::copy_in(argument)?;
            let (group, attribute) = (u32_at(&bytes, 4), u64_at(&bytes, 8));
            format!(
                "{group}.{attribute}{}",
                attribute_value(group, u64_at(&bytes, 16))?
            )
        }
        call::ARM_VCPU_INIT => {
            let bytes: [u8; 32] = process::copy_in(argument)?;
            format!(
                "target {} features {:#x}",
                u32_at(&bytes, 0),
                u32_at(&bytes, 4)
            )
        }
        call::ARM_VCPU_FINALIZE => u32::from_ne_bytes(process::copy_in(argument)?).to_string(),
        call::GET_ONE_REG => words(&process::copy_in::<16>(argument)?, &[0]),
        call::SET_ONE_REG => {
            let bytes: [u8; 16] = process::copy_in(argument)?;
            let value = u64::from_ne_bytes(process::copy_in(u64_at(&bytes, 8))?);
            format!("{} {value:#x}", words(&bytes, &[0]))
        }
        call::SET_CPUID2
        | call::SET_MSRS
        | call::SET_REGS
        | call::SET_SREGS
        | call::SIGNAL_MSI
        | call::SET_GSI_ROUTING => x86::describe(request, argument)?,
        _ => String::new(),
    })
}

/// The numbers at these offsets.
pub(crate) fn words(bytes: &[u8], offsets: &[usize]) -> String {
    let words = offsets
        .iter()
        .map(|offset| format!("{:#x}", u64_at(bytes, *offset)));
    words.collect::<Vec<_>>().join(" ")
}

/// What an attribute of the interrupt controller is set to.
fn attribute_value(group: u32, address: u64) -> Result<String, Errno> {
    const ADDRESS: u32 = 0;
    const NUMBER_OF_IRQS: u32 = 3;
    Ok(match group {
        ADDRESS => format!(" {:#x}", u64::from_ne_bytes(process::copy_in(address)?)),
        NUMBER_OF_IRQS => format!(" {}", u32::from_ne_bytes(process::copy_in(address)?)),
        _ => String::new(),
    })
}
