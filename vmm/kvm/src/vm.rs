//! A virtual machine: its guest-physical space and its interrupt inputs.
#![expect(unsafe_code, reason = "KVM is told host addresses of guest memory")]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostcall::gate;
use iommu::{Gpa, PageRange, Visibility};
use kvm_bindings::{
    KVM_MEM_GUEST_MEMFD, KVM_MEM_READONLY, kvm_userspace_memory_region,
    kvm_userspace_memory_region2,
};
use kvm_ioctls::{Kvm, VmFd};

use crate::cca::RealmAbi;
use crate::error::ioctl;
use crate::protected;
use crate::ram::GuestRam;
use crate::slots::Slots;
use crate::sw_protected;
use crate::{Access, Error, HostMemory, Ipa, SlotId};

/// What sets and removes memory slots, by its name in the kernel.
const SET_SLOT: &str = "KVM_SET_USER_MEMORY_REGION";

/// What sets slots that have private memory as well.
const SET_PRIVATE_SLOT: &str = "KVM_SET_USER_MEMORY_REGION2";

/// `KVM_X86_SNP_VM`.
const SNP_VM: u64 = 4;

/// `KVM_X86_TDX_VM`.
const TD_VM: u64 = 5;

/// `KVM_GET_API_VERSION` of every KVM since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// What a VM is to its guest; KVM is told when it makes the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmKind {
    /// An ordinary VM.
    Plain,
    /// A Realm of Arm CCA, by the form of the interface that the host has.
    Realm(RealmAbi),
    /// A protected VM of pKVM.
    Protected,
    /// A VM with private memory that only KVM keeps from its host: for development, on x86-64.
    SwProtected,
    /// A guest of AMD SEV-SNP.
    Snp,
    /// A trust domain of Intel TDX.
    Td,
}

impl VmKind {
    /// The argument of `KVM_CREATE_VM`.
    fn vm_type(self, ipa_bits: u8) -> u64 {
        match self {
            // Never 0 on arm64: it takes 40 bits without a word.
            Self::Plain if cfg!(target_arch = "aarch64") => u64::from(ipa_bits),
            Self::Plain => 0,
            Self::Realm(abi) => abi.vm_type(ipa_bits),
            Self::Protected => protected::VM_TYPE | u64::from(ipa_bits),
            Self::SwProtected => sw_protected::VM_TYPE,
            Self::Snp => SNP_VM,
            Self::Td => TD_VM,
        }
    }

    /// The form in which a guest that has private memory finds its pages when it starts.
    #[must_use]
    pub fn initial_visibility(self) -> Visibility {
        match self {
            // Nothing fills private memory of this kind but the guest.
            Self::SwProtected => Visibility::Shared,
            Self::Plain | Self::Realm(_) | Self::Protected | Self::Snp | Self::Td => {
                Visibility::Private
            }
        }
    }
}

/// A KVM virtual machine. Clones are handles to the same one; it goes when the last of them does.
#[derive(Clone)]
pub struct Vm(Arc<Inner>);

struct Inner {
    // Before `slots`: the VM is gone when its memory goes.
    fd: VmFd,
    kvm: Kvm,
    kind: VmKind,
    ipa_bits: u8,
    slots: Mutex<Slots>,
    has_run: AtomicBool,
}

impl Vm {
    /// An empty VM of this kind, of which guest-physical addresses have `ipa_bits` bits.
    ///
    /// On x86-64 the width is a matter of CPUID and `ipa_bits` has no effect here.
    ///
    /// # Errors
    /// When there is no KVM, no permission, or the host cannot have the kind or the width (arm64:
    /// 32..=its `KVM_CAP_ARM_VM_IPA_SIZE`).
    pub fn create(kind: VmKind, ipa_bits: u8) -> Result<Self, Error> {
        gate("open /dev/kvm").map_err(Error::Open)?;
        let kvm = Kvm::new().map_err(|errno| Error::Open(errno.into()))?;
        match kvm.get_api_version() {
            API_VERSION => {}
            other => return Err(Error::Api(other)),
        }
        // Never `create_vm()`: on arm64 it takes the widest space of the host without a word.
        let operation = match kind {
            VmKind::Plain => "create a VM of this IPA width",
            VmKind::Realm(_) => "create a Realm of this IPA width",
            VmKind::Protected => "create a protected VM of this IPA width",
            VmKind::SwProtected => "create a software-protected VM",
            VmKind::Snp => "create an SNP guest",
            VmKind::Td => "create a TD",
        };
        let fd = ioctl("KVM_CREATE_VM", operation, || {
            kvm.create_vm_with_type(kind.vm_type(ipa_bits))
        })?;
        Ok(Self(Arc::new(Inner {
            fd,
            kvm,
            kind,
            ipa_bits,
            slots: Mutex::default(),
            has_run: AtomicBool::new(false),
        })))
    }

    /// What it is to its guest.
    #[must_use]
    pub fn kind(&self) -> VmKind {
        self.0.kind
    }

    /// The width of guest-physical addresses.
    #[must_use]
    pub fn ipa_bits(&self) -> u8 {
        self.0.ipa_bits
    }

    /// Notes that a vCPU has come back from the guest.
    pub(crate) fn note_run(&self) {
        // Looked at first, so that processors share the line where it is.
        if !self.has_run() {
            self.0.has_run.store(true, Ordering::Relaxed);
        }
    }

    /// Whether one has: a Realm is active then.
    pub(crate) fn has_run(&self) -> bool {
        self.0.has_run.load(Ordering::Relaxed)
    }

    /// The VM's file, for what the other modules of this crate ask of it.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.0.fd
    }

    /// KVM itself, for what it says of this host.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn kvm(&self) -> &Kvm {
        &self.0.kvm
    }

    /// `KVM_CHECK_EXTENSION` on the VM: 0 when there is no such thing.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn extension(&self, capability: u32) -> i32 {
        self.0.fd.check_extension_raw(capability.into())
    }

    /// The most vCPUs that a VM of this host can have.
    #[must_use]
    pub fn max_vcpus(&self) -> usize {
        self.0.kvm.get_max_vcpus()
    }

    /// Shows the guest `memory` at `at`, and keeps it alive while the slot lives.
    ///
    /// # Errors
    /// When `at` or the length is not a multiple of 4 KiB, or KVM refuses (overlap, end beyond the
    /// IPA space, no slot left).
    pub fn add_memory(
        &self,
        at: Ipa,
        memory: impl Into<HostMemory>,
        access: Access,
    ) -> Result<SlotId, Error> {
        let memory = memory.into();
        let bytes = memory.bytes();
        let range = PageRange::new(at, bytes).map_err(|_| Error::Misaligned { at, bytes })?;
        let mut slots = self.slots();
        let id = slots.free_id();
        let flags = match access {
            Access::ReadWrite => 0,
            Access::ReadOnly => KVM_MEM_READONLY,
        };
        self.set_slot("map", id, flags, range, memory.address() as u64)?;
        slots.insert(id, range, memory);
        Ok(SlotId(id))
    }

    /// Shows the guest its RAM, and keeps it alive with the VM. Where it has private memory all of it
    /// is private, but for [`VmKind::SwProtected`], where all of it is shared.
    ///
    /// # Errors
    /// When KVM refuses a slot.
    pub fn add_ram(&self, ram: &Arc<GuestRam>) -> Result<(), Error> {
        for slot in ram.slots() {
            let at = Ipa::new(slot.guest);
            let bytes = slot.bytes;
            let memory = HostMemory::of_ram(slot, ram).ok_or(Error::Misaligned { at, bytes })?;
            match ram.guest_memfd_at(slot) {
                None => self.add_memory(at, memory, Access::ReadWrite).map(drop)?,
                Some(private) => self.add_private_memory(at, memory, private)?,
            }
        }
        Ok(())
    }

    fn add_private_memory(
        &self,
        at: Ipa,
        memory: HostMemory,
        private: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let bytes = memory.bytes();
        let misaligned = |_| Error::Misaligned { at, bytes };
        let range = PageRange::new(at, bytes).map_err(misaligned)?;
        let pages = PageRange::new(Gpa::new(at.raw()), bytes).map_err(misaligned)?;
        let mut slots = self.slots();
        let id = slots.free_id();
        let region = kvm_userspace_memory_region2 {
            slot: id,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: at.raw(),
            memory_size: bytes,
            userspace_addr: memory.address() as u64,
            guest_memfd_offset: 0,
            guest_memfd: private.as_raw_fd().cast_unsigned(),
            ..Default::default()
        };
        let refused = slot_error("map", SET_PRIVATE_SLOT, range);
        let done = gate(SET_PRIVATE_SLOT).and_then(|()| {
            // SAFETY: the region is the whole of a `HostMemory`, which `slots` keeps mapped until the
            // slot has been deleted or the VM is gone.
            let done = unsafe { self.0.fd.set_user_memory_region2(region) };
            done.map_err(io::Error::from)
        });
        done.map_err(refused)?;
        slots.insert(id, range, memory);
        drop(slots);
        match self.kind().initial_visibility() {
            Visibility::Private => self.set_visibility(pages, Visibility::Private),
            // So it is without a word.
            Visibility::Shared => Ok(()),
        }
    }

    /// Takes the memory of `slot` away from the guest, then lets go of it.
    ///
    /// # Errors
    /// When there is no such slot, or KVM refuses; the memory is then kept.
    pub fn remove_memory(&self, slot: SlotId) -> Result<(), Error> {
        let mut slots = self.slots();
        let range = slots.range(slot).ok_or(Error::NoSlot(slot.0))?;
        self.delete_slot(slot, range)?;
        slots.remove(slot);
        Ok(())
    }

    fn delete_slot(&self, slot: SlotId, range: PageRange<Ipa>) -> Result<(), Error> {
        let region = kvm_userspace_memory_region {
            slot: slot.0,
            guest_phys_addr: range.start().raw(),
            ..Default::default()
        };
        gate(SET_SLOT).map_err(slot_error("unmap", SET_SLOT, range))?;
        // SAFETY: a slot of no bytes names no host memory.
        let done = unsafe { self.0.fd.set_user_memory_region(region) };
        let done = done.map_err(io::Error::from);
        done.map_err(slot_error("unmap", SET_SLOT, range))
    }

    fn set_slot(
        &self,
        operation: &'static str,
        slot: u32,
        flags: u32,
        range: PageRange<Ipa>,
        host: u64,
    ) -> Result<(), Error> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: range.start().raw(),
            memory_size: range.bytes(),
            userspace_addr: host,
        };
        gate(SET_SLOT).map_err(slot_error(operation, SET_SLOT, range))?;
        // SAFETY: the only caller passes the whole of a `HostMemory`, which `slots` keeps mapped
        // until the slot has been deleted or the VM is gone.
        let done = unsafe { self.0.fd.set_user_memory_region(region) };
        let done = done.map_err(io::Error::from);
        done.map_err(slot_error(operation, SET_SLOT, range))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A panic between KVM's table and ours leaks memory at worst.
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot_error(
    operation: &'static str,
    call: &'static str,
    range: PageRange<Ipa>,
) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Slot {
        operation,
        call,
        at: range.start(),
        bytes: range.bytes(),
        source,
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("ipa_bits", &self.0.ipa_bits)
            .finish_non_exhaustive()
    }
}
