//! One host: which kinds of VM it has, and what has been done on it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_int;
use std::os::fd::RawFd;

use crate::files::{Files, Kind};
use crate::vm::{VmState, Written};
use crate::{Errno, call, process, tdx, x86};

/// Which confidential VMs a kernel makes, and by which form of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// None: a released kernel.
    None,
    /// Series v6 and v7.
    EnableCap,
    /// Series v13: a VM type as in v7, and the calls of v14.
    EarlyPopulate,
    /// Series v14.
    Populate,
    /// Series v15: the calls of v14, and the state of pages in guest_memfd.
    PrivateFiles,
    /// None, and VMs of x86-64 with private memory for development.
    SwProtected,
    /// Of a released kernel on a host that has guests of SEV-SNP.
    Snp,
    /// Of a released kernel on a host that has TDs.
    Tdx,
}

impl Form {
    /// Whether its VMs are Realms.
    pub(crate) const fn is_realm(self) -> bool {
        matches!(
            self,
            Self::EnableCap | Self::EarlyPopulate | Self::Populate | Self::PrivateFiles
        )
    }
}

/// What a `KVM_RUN` returns with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// `KVM_EXIT_MEMORY_FAULT`; the call fails with `EFAULT`, unless it is `completing`.
    MemoryFault {
        /// `KVM_MEMORY_EXIT_FLAG_*`.
        flags: u64,
        /// First byte.
        gpa: u64,
        /// How many.
        size: u64,
        /// Whether the call succeeds.
        completing: bool,
    },
    /// `KVM_EXIT_SYSTEM_EVENT` with this type.
    SystemEvent(u32),
    /// What a Realm that another vCPU has turned off returns with, and nothing more: this reason.
    RealmOff(u32),
    /// None: the call fails by this number.
    Refused(i32),
    /// `KVM_EXIT_HYPERCALL` for `KVM_HC_MAP_GPA_RANGE`.
    MapGpaRange {
        /// First byte.
        gpa: u64,
        /// How many pages.
        pages: u64,
        /// Bit 4: private.
        attributes: u64,
    },
    /// `KVM_EXIT_TDX` with this number; its status is one that no answer has.
    TdCall(u64),
    /// `KVM_EXIT_MMIO`: the guest stores a byte.
    Store {
        /// Where.
        at: u64,
        /// What.
        byte: u8,
    },
}

/// A host, and what has been done on it.
pub struct Host {
    form: Form,
    /// Whether it runs as pKVM.
    pub pkvm: bool,
    /// Whether there is an RMM to make Realms.
    pub rmm: bool,
    /// The widest space that the RMM makes.
    pub realm_bits: u64,
    /// Whether there is private memory.
    pub guest_memfd: bool,
    /// Whether the state of pages is kept: by KVM, or where the form is [`Form::PrivateFiles`] by a file.
    pub attributes: bool,
    /// Whether a slot with private memory has no other memory.
    pub in_place: bool,
    /// Whether there are the calls that belong to the VM type.
    pub calls: bool,
    pub(crate) notes: Vec<String>,
    pub(crate) fails: Option<(usize, Errno)>,
    /// What is said of the call that fails by those below KVM; 0 for nothing.
    pub(crate) status: u64,
    /// What the exits were answered with.
    pub(crate) answers: Vec<[u64; 8]>,
    /// What the vCPUs do, by their index.
    pub(crate) exits: BTreeMap<u64, VecDeque<Exit>>,
    pub(crate) files: Files,
    pub(crate) vms: Vec<VmState>,
}

/// Length of a vCPU's shared pages.
const RUN_BYTES: u64 = 8192;
/// What a vCPU returns that has nothing to do: as after a signal, a moment later.
pub(crate) const IDLE: Errno = libc::EINTR;
/// Offsets in `struct kvm_run`.
const EXIT_REASON: u64 = 8;
const EXIT: u64 = 32;
/// Exits that the process answers in their structure.
const HYPERCALL: u32 = 3;
const TDX: u32 = 40;

impl Host {
    /// A host whose kernel has this form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            pkvm: false,
            rmm: true,
            realm_bits: 48,
            guest_memfd: true,
            attributes: true,
            in_place: false,
            calls: true,
            notes: Vec::new(),
            fails: None,
            status: 0,
            answers: Vec::new(),
            exits: BTreeMap::new(),
            files: Files::default(),
            vms: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self, device: Kind) -> Result<c_int, Errno> {
        if device == Kind::SecurityProcessor && self.form != Form::Snp {
            return Err(libc::ENOENT);
        }
        self.files.make(device, 0)
    }

    /// Answers a call, if `fd` is a file of this kernel.
    pub(crate) fn answer(
        &mut self,
        fd: RawFd,
        request: u64,
        argument: u64,
    ) -> Option<Result<c_int, Errno>> {
        let kind = self.files.kind(fd)?;
        if let (Kind::Vcpu(_, index), call::RUN) = (kind, request)
            && self.exits.get(&index).is_none_or(VecDeque::is_empty)
        {
            return Some(Err(IDLE));
        }
        let note = self.describe(kind, request, argument);
        self.notes.push(note.unwrap_or_else(|errno| {
            format!("{request:#x} with a structure that cannot be read: {errno}")
        }));
        if let Some((nth, errno)) = self.fails
            && nth == self.notes.len()
        {
            if self.status != 0 && request == call::MEMORY_ENCRYPT_OP {
                // The status of both structures is at the same place; after that of SEV, which is half as
                // long, comes a file.
                let status = self.status.to_ne_bytes();
                let bytes = if self.form == Form::Snp {
                    &status[..4]
                } else {
                    &status
                };
                if let Err(errno) = process::write(argument.saturating_add(16), bytes) {
                    return Some(Err(errno));
                }
            }
            return Some(Err(errno));
        }
        Some(self.perform(kind, fd, request, argument))
    }

    fn perform(
        &mut self,
        kind: Kind,
        fd: RawFd,
        request: u64,
        argument: u64,
    ) -> Result<c_int, Errno> {
        match (kind, request) {
            (Kind::Kvm, call::GET_API_VERSION) => Ok(12),
            (Kind::Kvm, call::GET_VCPU_MMAP_SIZE) => {
                Ok(c_int::try_from(RUN_BYTES).unwrap_or(c_int::MAX))
            }
            (Kind::Kvm, call::CREATE_VM) => self.create_vm(argument),
            (Kind::Kvm, call::GET_SUPPORTED_CPUID) => x86::supported_cpuid(argument),
            (Kind::Kvm | Kind::Vm(_), call::CHECK_EXTENSION) => Ok(extension(self.form, argument)),
            (Kind::Vm(vm), call::CREATE_VCPU) => {
                self.vm(vm)?.add_vcpu(argument)?;
                self.files.make(Kind::Vcpu(vm, argument), RUN_BYTES)
            }
            (Kind::Vm(vm), call::CREATE_DEVICE) => {
                let device = self.files.make(Kind::Device(vm), 0)?;
                // `struct kvm_create_device`: type, fd, flags.
                process::write(argument.saturating_add(4), &device.to_ne_bytes())?;
                Ok(0)
            }
            (Kind::Vm(vm), call::CREATE_GUEST_MEMFD) => self.create_guest_memfd(vm, argument),
            (Kind::Vm(_), call::SET_MEMORY_ATTRIBUTES)
                if !self.attributes || self.form == Form::PrivateFiles =>
            {
                Err(libc::ENOTTY)
            }
            (Kind::GuestMemfd(vm), call::SET_MEMORY_ATTRIBUTES2)
                if self.attributes && self.form == Form::PrivateFiles =>
            {
                let bytes = self.files.length(fd)?;
                self.vm(vm)?.set_attributes_of(fd, bytes, argument)
            }
            (Kind::Vm(vm), call::SET_USER_MEMORY_REGION2) if self.wants_whole_files(vm) => {
                Err(libc::EINVAL)
            }
            (Kind::Vm(_), call::ENABLE_CAP) if !self.calls => Err(libc::EINVAL),
            (Kind::Vm(vm), call::MEMORY_ENCRYPT_OP) => {
                let device = self.sev_device(argument)?;
                let done = self.vm(vm)?.encrypt_op(argument, device)?;
                self.write(done)
            }
            (Kind::Vcpu(vm, index), call::MEMORY_ENCRYPT_OP) => {
                let done = tdx::vcpu_op(self.vm(vm)?, index, argument);
                // What was done before a signal came is done.
                let (done, answer) = done?;
                self.write(done)?;
                answer
            }
            (Kind::Vm(_), call::ARM_RMI_POPULATE) if !self.calls => Err(libc::ENOTTY),
            (Kind::Vm(vm), _) => {
                let done = self.vm(vm)?.call(request, argument)?;
                self.write(done)
            }
            (Kind::Vcpu(vm, index), call::RUN) => {
                self.vm(vm)?.may_run(index)?;
                self.note_answer(fd);
                let exits = self.exits.get_mut(&index);
                let exit = exits.and_then(VecDeque::pop_front).ok_or(IDLE)?;
                self.run(fd, exit)
            }
            (Kind::Vcpu(vm, index), _) => self.vm(vm)?.vcpu_call(index, request, argument),
            (Kind::Device(_), call::SET_DEVICE_ATTR | call::HAS_DEVICE_ATTR) => Ok(0),
            _ => Err(libc::ENOTTY),
        }
    }

    fn write(&self, done: Vec<Written>) -> Result<c_int, Errno> {
        for (file, offset, bytes) in done {
            self.files.write(file, &bytes, offset)?;
        }
        Ok(0)
    }

    /// Whether the file that a sub-command of SEV names is the security processor.
    fn sev_device(&self, argument: u64) -> Result<bool, Errno> {
        let bytes: [u8; 24] = process::copy_in(argument)?;
        let fd = RawFd::try_from(u32_at(&bytes, 20)).unwrap_or(-1);
        Ok(self.files.kind(fd) == Some(Kind::SecurityProcessor))
    }

    /// Notes what the exit before this run was answered with, if it is one that has an answer.
    fn note_answer(&mut self, fd: RawFd) {
        let mut bytes = [0; 64];
        let reason = self.files.read(fd, EXIT_REASON, &mut bytes);
        let reason = reason.map(|()| u32_at(&bytes, 0));
        if matches!(reason, Ok(HYPERCALL | TDX)) && self.files.read(fd, EXIT, &mut bytes).is_ok() {
            let words = std::array::from_fn(|word| u64_at(&bytes, word * 8));
            self.answers.push(words);
        }
    }

    fn create_vm(&mut self, vm_type: u64) -> Result<c_int, Errno> {
        // Types of x86-64 VMs, which on arm64 would be widths that no kernel makes.
        match (vm_type, self.form) {
            (1, Form::SwProtected) | (4, Form::Snp) | (5, Form::Tdx) => {
                return self.add_vm(self.form);
            }
            _ => {}
        }
        let flags = vm_type & !0xff;
        let form = match flags {
            0 => Form::None,
            0x100 if self.form == Form::EarlyPopulate => Form::EarlyPopulate,
            0x100 => Form::EnableCap,
            0x4000_0000 if self.form == Form::PrivateFiles => Form::PrivateFiles,
            0x4000_0000 => Form::Populate,
            // A protected VM's calls are those of an ordinary one.
            0x8000_0000 if self.pkvm => Form::None,
            _ => return Err(libc::EINVAL),
        };
        let bits = vm_type & 0xff;
        let offered = form == Form::None || form == self.form;
        if !offered || bits != 0 && !(32..=48).contains(&bits) {
            return Err(libc::EINVAL);
        }
        match form {
            Form::None => {}
            // Series v7 alone says so.
            Form::EnableCap if !self.rmm => return Err(libc::EPERM),
            _ if !self.rmm || bits > self.realm_bits => return Err(libc::EINVAL),
            _ => {}
        }
        self.add_vm(form)
    }

    fn add_vm(&mut self, form: Form) -> Result<c_int, Errno> {
        let number = self.vms.len();
        self.vms.push(VmState::new(form));
        self.files.make(Kind::Vm(number), 0)
    }

    /// `struct kvm_create_guest_memfd`: size, flags, 48 reserved bytes.
    fn create_guest_memfd(&mut self, vm: usize, argument: u64) -> Result<c_int, Errno> {
        let bytes: [u8; 64] = process::copy_in(argument)?;
        let size = u64_at(&bytes, 0);
        let plain = self.vm(vm)?.form() == Form::None;
        let private = !plain || self.form == Form::PrivateFiles;
        if !self.guest_memfd {
            return Err(libc::ENOTTY);
        }
        if !private
            || size == 0
            || !size.is_multiple_of(4096)
            || bytes.iter().skip(8).any(|byte| *byte != 0)
        {
            return Err(libc::EINVAL);
        }
        let file = self.files.make(Kind::GuestMemfd(vm), size)?;
        self.vm(vm)?.files.push(file);
        Ok(file)
    }

    /// Whether a slot of this VM takes a guest_memfd only as the whole of its memory, and there are none of
    /// that kind: an ordinary VM of arm64.
    fn wants_whole_files(&self, vm: usize) -> bool {
        let plain = self.vms.get(vm).is_some_and(|vm| vm.form() == Form::None);
        plain && !self.in_place
    }

    fn run(&mut self, fd: RawFd, exit: Exit) -> Result<c_int, Errno> {
        const MMIO: u32 = 6;
        const SYSTEM_EVENT: u32 = 24;
        const MEMORY_FAULT: u32 = 39;
        const MAP_GPA_RANGE: u64 = 12;
        /// A store (1 in the upper half) of one byte.
        const STORE: u64 = 1 << 32 | 1;
        let (reason, words, answer) = match exit {
            Exit::MemoryFault {
                flags,
                gpa,
                size,
                completing,
            } => {
                let answer = if completing { Ok(0) } else { Err(libc::EFAULT) };
                (MEMORY_FAULT, vec![flags, gpa, size], answer)
            }
            Exit::RealmOff(reason) => (reason, Vec::new(), Ok(0)),
            Exit::Refused(errno) => return Err(errno),
            Exit::SystemEvent(event) => (SYSTEM_EVENT, vec![event.into(), 0, 0], Ok(0)),
            Exit::MapGpaRange {
                gpa,
                pages,
                attributes,
            } => {
                // Number, six arguments, and the result that KVM puts there.
                let words = vec![MAP_GPA_RANGE, gpa, pages, attributes, 0, 0, 0, 0];
                (HYPERCALL, words, Ok(0))
            }
            Exit::TdCall(number) => (TDX, vec![0, number, u64::MAX, 1, 1, 1, 1, 1], Ok(0)),
            Exit::Store { at, byte } => (MMIO, vec![at, byte.into(), STORE], Ok(0)),
        };
        self.files.write(fd, &reason.to_ne_bytes(), EXIT_REASON)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.files.write(fd, &bytes, EXIT)?;
        answer
    }

    pub(crate) fn private(&self, at: u64) -> Option<u8> {
        let places = self.vms.iter().filter_map(|vm| vm.place(at));
        let mut bytes = places.map(|(file, offset)| self.files.byte(file, offset));
        bytes.next_back().flatten()
    }

    fn vm(&mut self, number: usize) -> Result<&mut VmState, Errno> {
        self.vms.get_mut(number).ok_or(libc::EBADF)
    }
}

/// What a capability is: the widest space, and a guest's usual things.
fn extension(form: Form, capability: u64) -> c_int {
    const ARM_VM_IPA_SIZE: u64 = 165;
    const VM_TYPES: u64 = 235;
    match capability {
        ARM_VM_IPA_SIZE => 48,
        VM_TYPES => match form {
            Form::Snp => 1 | 1 << 4,
            Form::Tdx => 1 | 1 << 5,
            Form::SwProtected => 1 | 1 << 1,
            Form::None
            | Form::EnableCap
            | Form::EarlyPopulate
            | Form::Populate
            | Form::PrivateFiles => 1,
        },
        _ => 0,
    }
}

/// The number at `offset` of a structure; 0 beyond its end.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let word = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u64::from_ne_bytes(*word))
}

/// As [`u64_at`].
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let word = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_ne_bytes(*word))
}
