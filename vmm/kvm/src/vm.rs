//! A virtual machine: its guest-physical space and its interrupt inputs.
#![expect(unsafe_code, reason = "KVM is told host addresses of guest memory")]

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use iommu::PageRange;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};

use crate::ram::GuestRam;
use crate::slots::Slots;
use crate::{Access, Error, HostMemory, Ipa, SlotId};

/// `KVM_GET_API_VERSION` of every KVM since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// A KVM virtual machine. Clones are handles to the same one; it goes when the last of them does.
#[derive(Clone)]
pub struct Vm(Arc<Inner>);

struct Inner {
    // Before `slots`: the VM is gone when its memory goes.
    fd: VmFd,
    kvm: Kvm,
    ipa_bits: u8,
    slots: Mutex<Slots>,
}

impl Vm {
    /// An empty VM of which guest-physical addresses have `ipa_bits` bits.
    ///
    /// On x86-64 the width is a matter of CPUID and `ipa_bits` has no effect here.
    ///
    /// # Errors
    /// When there is no KVM, no permission, or the host cannot have the width (arm64: 32..=its
    /// `KVM_CAP_ARM_VM_IPA_SIZE`).
    pub fn create(ipa_bits: u8) -> Result<Self, Error> {
        let kvm = Kvm::new().map_err(|errno| Error::Open(errno.into()))?;
        match kvm.get_api_version() {
            API_VERSION => {}
            other => return Err(Error::Api(other)),
        }
        // Never `create_vm()`: on arm64 it takes the widest space of the host without a word.
        let vm_type = if cfg!(target_arch = "aarch64") {
            u64::from(ipa_bits)
        } else {
            0
        };
        let fd = kvm
            .create_vm_with_type(vm_type)
            .map_err(Error::ioctl("create a VM of this IPA width"))?;
        Ok(Self(Arc::new(Inner {
            fd,
            kvm,
            ipa_bits,
            slots: Mutex::default(),
        })))
    }

    /// The width of guest-physical addresses.
    #[must_use]
    pub fn ipa_bits(&self) -> u8 {
        self.0.ipa_bits
    }

    /// The VM's file, for what the other modules of this crate ask of it.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.0.fd
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

    /// Shows the guest its RAM, and keeps it alive with the VM.
    ///
    /// # Errors
    /// When KVM refuses a slot.
    pub fn add_ram(&self, ram: &Arc<GuestRam>) -> Result<(), Error> {
        for slot in ram.slots() {
            let at = Ipa::new(slot.guest);
            let bytes = slot.bytes;
            let memory = HostMemory::of_ram(slot, ram).ok_or(Error::Misaligned { at, bytes })?;
            self.add_memory(at, memory, Access::ReadWrite)?;
        }
        Ok(())
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
        // SAFETY: a slot of no bytes names no host memory.
        let done = unsafe { self.0.fd.set_user_memory_region(region) };
        done.map_err(slot_error("unmap", range))
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
        // SAFETY: the only caller passes the whole of a `HostMemory`, which `slots` keeps mapped
        // until the slot has been deleted or the VM is gone.
        let done = unsafe { self.0.fd.set_user_memory_region(region) };
        done.map_err(slot_error(operation, range))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // A panic between KVM's table and ours leaks memory at worst.
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot_error(
    operation: &'static str,
    range: PageRange<Ipa>,
) -> impl FnOnce(vmm_sys_util::errno::Error) -> Error {
    move |errno| Error::Slot {
        operation,
        at: range.start(),
        bytes: range.bytes(),
        source: errno.into(),
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("ipa_bits", &self.0.ipa_bits)
            .finish_non_exhaustive()
    }
}
