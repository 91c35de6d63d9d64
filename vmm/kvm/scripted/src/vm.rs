//! One VM: its memory, its vCPUs, and how far it is on its way to running.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::os::fd::RawFd;

use crate::host::{Form, u32_at, u64_at};
use crate::realm::{self, Realm};
use crate::snp::Snp;
use crate::tdx::Td;
use crate::{Errno, call, process, snp, tdx, x86};

/// Bytes for a file of this kernel: the file, where in it, and the bytes.
pub(crate) type Written = (RawFd, u64, Vec<u8>);

/// A memory slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    pub(crate) host: u64,
    pub(crate) file: Option<RawFd>,
}

/// A vCPU, as far as it was made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Vcpu {
    pub(crate) features: Option<u32>,
    pub(crate) finalized: bool,
    /// On x86-64: what it is was set.
    pub(crate) has_cpuid: bool,
}

/// A VM.
pub(crate) struct VmState {
    form: Form,
    pub(crate) files: Vec<RawFd>,
    pub(crate) slots: BTreeMap<u32, Slot>,
    pub(crate) vcpus: BTreeMap<u64, Vcpu>,
    pub(crate) realm: Realm,
    pub(crate) snp: Snp,
    pub(crate) td: Td,
    /// Which pages are private, the later ranges over the earlier.
    states: Vec<(u64, u64, bool)>,
    pub(crate) irqchip: x86::Irqchip,
}

impl VmState {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            form,
            files: Vec::new(),
            slots: BTreeMap::new(),
            vcpus: BTreeMap::new(),
            realm: Realm::default(),
            snp: Snp::default(),
            td: Td::default(),
            states: Vec::new(),
            irqchip: x86::Irqchip::default(),
        }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// A call at the VM's file; what it writes to files of this kernel.
    pub(crate) fn call(&mut self, request: u64, argument: u64) -> Result<Vec<Written>, Errno> {
        match request {
            call::SET_USER_MEMORY_REGION => self.set_slot(&process::copy_in::<32>(argument)?),
            call::SET_USER_MEMORY_REGION2 => self.set_slot(&process::copy_in::<160>(argument)?),
            call::SET_MEMORY_ATTRIBUTES => self.set_attributes(argument),
            call::ENABLE_CAP if self.form == Form::EnableCap => realm::enable_cap(self, argument),
            call::ENABLE_CAP => x86::enable_cap(self, argument),
            call::CREATE_IRQCHIP | call::SET_TSS_ADDR | call::SET_IDENTITY_MAP_ADDR => {
                x86::irqchip_call(self, request)
            }
            call::SET_GSI_ROUTING | call::SIGNAL_MSI | call::SET_TSC_KHZ => Ok(Vec::new()),
            call::ARM_RMI_POPULATE => realm::populate(self, argument),
            call::ARM_PREFERRED_TARGET => {
                process::write(argument, &5_u32.to_ne_bytes())?;
                Ok(Vec::new())
            }
            // KVM has no lines where it has no IOAPIC.
            call::IRQ_LINE if self.irqchip == x86::Irqchip::Local => Err(libc::ENXIO),
            call::IRQ_LINE => Ok(Vec::new()),
            _ => Err(libc::ENOTTY),
        }
    }

    /// `slot`, `flags`, address, length, host address, and in the longer form offset and file.
    fn set_slot(&mut self, bytes: &[u8]) -> Result<Vec<Written>, Errno> {
        const GUEST_MEMFD: u32 = 4;
        let number = u32_at(bytes, 0);
        let private = u32_at(bytes, 4) & GUEST_MEMFD != 0;
        let file = RawFd::try_from(u32_at(bytes, 40)).ok().filter(|_| private);
        let slot = Slot {
            at: u64_at(bytes, 8),
            bytes: u64_at(bytes, 16),
            host: u64_at(bytes, 24),
            file,
        };
        let known = file.is_none_or(|file| self.files.contains(&file));
        if !known
            || !slot.at.is_multiple_of(4096)
            || !slot.bytes.is_multiple_of(4096)
            || u64_at(bytes, 32) != 0
        {
            return Err(libc::EINVAL);
        }
        match slot.bytes {
            0 => self.slots.remove(&number),
            _ => self.slots.insert(number, slot),
        };
        Ok(Vec::new())
    }

    /// `struct kvm_memory_attributes`: address, size, attributes, flags.
    fn set_attributes(&mut self, argument: u64) -> Result<Vec<Written>, Errno> {
        const PRIVATE: u64 = 8;
        let bytes: [u8; 32] = process::copy_in(argument)?;
        let [at, size, attributes, flags] = [0, 8, 16, 24].map(|offset| u64_at(&bytes, offset));
        let aligned = at.is_multiple_of(4096) && size.is_multiple_of(4096) && size != 0;
        let known = attributes & !PRIVATE == 0 && flags == 0;
        if self.form == Form::None || !aligned || !known {
            return Err(libc::EINVAL);
        }
        let end = at.checked_add(size).ok_or(libc::EINVAL)?;
        self.states.push((at, end, attributes == PRIVATE));
        Ok(Vec::new())
    }

    /// `struct kvm_memory_attributes2` at a guest_memfd of `length` bytes: offset, size, attributes, flags,
    /// where it failed, reserved words. Stricter than a kernel: this form has no use for shared pages.
    pub(crate) fn set_attributes_of(
        &mut self,
        file: RawFd,
        length: u64,
        argument: u64,
    ) -> Result<c_int, Errno> {
        const PRIVATE: u64 = 8;
        let bytes: [u8; 128] = process::copy_in(argument)?;
        let [offset, size, attributes] = [0, 8, 16].map(|at| u64_at(&bytes, at));
        let aligned = offset.is_multiple_of(4096) && size.is_multiple_of(4096) && size != 0;
        let within = offset.checked_add(size).is_some_and(|end| end <= length);
        let zero = bytes.iter().skip(24).all(|byte| *byte == 0);
        match self.files.contains(&file) && aligned && within && zero && attributes == PRIVATE {
            true => Ok(0),
            false => Err(libc::EINVAL),
        }
    }

    /// Whether the page at `at` is private.
    pub(crate) fn is_private(&self, at: u64) -> bool {
        if self.form == Form::PrivateFiles {
            return self.slot(at).is_some_and(|slot| slot.file.is_some());
        }
        let mut states = self.states.iter().rev();
        states
            .find(|(start, end, _)| (*start..*end).contains(&at))
            .is_some_and(|(.., private)| *private)
    }

    /// A sub-command of `KVM_MEMORY_ENCRYPT_OP`; `device`: it names the security processor.
    pub(crate) fn encrypt_op(
        &mut self,
        argument: u64,
        device: bool,
    ) -> Result<Vec<Written>, Errno> {
        match self.form {
            Form::Snp => snp::encrypt_op(self, argument, device),
            Form::Tdx => tdx::vm_op(self, argument),
            Form::None
            | Form::EnableCap
            | Form::EarlyPopulate
            | Form::Populate
            | Form::PrivateFiles
            | Form::SwProtected => Err(libc::ENOTTY),
        }
    }

    pub(crate) fn add_vcpu(&mut self, index: u64) -> Result<(), Errno> {
        let ready = match self.form {
            Form::Snp => self.snp.is_initialized() && self.irqchip == x86::Irqchip::Full,
            Form::Tdx => self.td.is_initialized() && self.irqchip == x86::Irqchip::Local,
            Form::None
            | Form::EnableCap
            | Form::EarlyPopulate
            | Form::Populate
            | Form::PrivateFiles
            | Form::SwProtected => true,
        };
        if !ready {
            return Err(libc::EINVAL);
        }
        match self.vcpus.insert(index, Vcpu::default()) {
            None => Ok(()),
            Some(_) => Err(libc::EEXIST),
        }
    }

    /// A call at a vCPU's file, but for running it.
    pub(crate) fn vcpu_call(
        &mut self,
        index: u64,
        request: u64,
        argument: u64,
    ) -> Result<c_int, Errno> {
        let (form, created) = (self.form, self.realm.is_created());
        let vcpu = self.vcpus.get_mut(&index).ok_or(libc::EBADF)?;
        match request {
            call::ARM_VCPU_INIT => {
                let bytes: [u8; 32] = process::copy_in(argument)?;
                let features = u32_at(&bytes, 4);
                if features & realm::REC != 0 && form != Form::EnableCap {
                    return Err(libc::ENOENT);
                }
                vcpu.features = Some(features);
            }
            call::ARM_VCPU_FINALIZE => {
                let feature = u32::from_ne_bytes(process::copy_in(argument)?);
                let asked = vcpu.features.unwrap_or(0) & realm::REC != 0;
                if 1_u32.checked_shl(feature) != Some(realm::REC) || !asked {
                    return Err(libc::EINVAL);
                }
                if !created || vcpu.finalized {
                    return Err(libc::EPERM);
                }
                vcpu.finalized = true;
            }
            call::SET_ONE_REG => {
                let id = u64_at(&process::copy_in::<16>(argument)?, 0);
                let of_realm = form.is_realm();
                if of_realm && !realm::may_set(id) {
                    return Err(libc::EINVAL);
                }
                // Stricter than a kernel, which takes a value that the RMM never gets.
                if vcpu.features.is_none() || vcpu.finalized {
                    return Err(libc::EPERM);
                }
            }
            call::GET_ONE_REG => {
                let bytes: [u8; 16] = process::copy_in(argument)?;
                let value = 0x8000_0000 | index;
                process::write(u64_at(&bytes, 8), &value.to_ne_bytes())?;
            }
            _ => return self.x86_vcpu_call(index, request, argument),
        }
        Ok(0)
    }

    fn x86_vcpu_call(&mut self, index: u64, request: u64, argument: u64) -> Result<c_int, Errno> {
        // Nobody but the guest sees or sets its registers.
        let protected = match self.form {
            Form::Snp => self.snp.is_finished(),
            Form::Tdx => true,
            Form::None
            | Form::EnableCap
            | Form::EarlyPopulate
            | Form::Populate
            | Form::PrivateFiles
            | Form::SwProtected => false,
        };
        let vcpu = self.vcpus.get_mut(&index).ok_or(libc::EBADF)?;
        x86::vcpu_call(vcpu, protected, request, argument)
    }

    /// Whether a vCPU may run, and what its first run brings about.
    pub(crate) fn may_run(&mut self, index: u64) -> Result<(), Errno> {
        let vcpu = self.vcpus.get(&index).ok_or(libc::EBADF)?;
        let ready = match self.form {
            Form::Snp => Some(self.snp.is_finished()),
            Form::Tdx => Some(self.td.is_finalized()),
            Form::None
            | Form::EnableCap
            | Form::EarlyPopulate
            | Form::Populate
            | Form::PrivateFiles
            | Form::SwProtected => None,
        };
        match ready {
            Some(true) => return Ok(()),
            Some(false) => return Err(libc::EINVAL),
            None => {}
        }
        if vcpu.features.is_none() {
            return Err(libc::ENOEXEC);
        }
        self.realm.enter(self.form)
    }

    /// Which slot holds the pages from `at`, and the memory of both forms there: the host address, and
    /// the file with its offset.
    pub(crate) fn place(&self, at: u64) -> Option<(RawFd, u64)> {
        let slot = self.slot(at)?;
        Some((slot.file?, at - slot.at))
    }

    /// The same of `at..end`, if all of it is private and none of it in `filled`.
    pub(crate) fn empty_place(
        &self,
        at: u64,
        end: u64,
        filled: &[(u64, u64)],
    ) -> Result<(RawFd, u64), Errno> {
        let place = self.place(at).ok_or(libc::EINVAL)?;
        self.place(end - 1).ok_or(libc::EINVAL)?;
        let private = (at..end).step_by(4096).all(|page| self.is_private(page));
        let meets = |(start, stop): &(u64, u64)| *start < end && at < *stop;
        match private && !filled.iter().any(meets) {
            true => Ok(place),
            false => Err(libc::EIO),
        }
    }

    pub(crate) fn slot(&self, at: u64) -> Option<&Slot> {
        let mut slots = self.slots.values();
        slots.find(|slot| (slot.at..slot.at.saturating_add(slot.bytes)).contains(&at))
    }
}
