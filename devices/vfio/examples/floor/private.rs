//! Memory whose private pages are in a guest_memfd, as a software-protected VM has it.
//!
//! ```text
//!   share    KVM_SET_MEMORY_ATTRIBUTES, fallocate of the guest_memfd, VFIO_IOMMU_MAP_DMA in each group
//!   unshare  VFIO_IOMMU_UNMAP_DMA in each group, KVM_SET_MEMORY_ATTRIBUTES, madvise of the shared memory
//!   both     KVM_RUN, until the guest asks for the next
//! ```
//! A guest of eight instructions asks, so that the exit is among the calls as it is for every guest.
#![expect(unsafe_code, reason = "takes over a descriptor, and names memory")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

use kvm_bindings::{
    KVM_CAP_EXIT_HYPERCALL, KVM_MEM_GUEST_MEMFD, KVM_MEMORY_ATTRIBUTE_PRIVATE,
    kvm_create_guest_memfd, kvm_enable_cap, kvm_memory_attributes, kvm_regs,
    kvm_userspace_memory_region2,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use crate::Extent;
use crate::calls::{GIB, GUEST, advise, punch, reserve};
use crate::containers::Containers;

/// `KVM_X86_SW_PROTECTED_VM`.
const VM_TYPE: u64 = 1;
/// `KVM_HC_MAP_GPA_RANGE`, and the attribute that says private.
const MAP_GPA_RANGE: u64 = 12;
const PRIVATE: u64 = 1 << 4;

/// In real mode: ebx has the address, ecx the number of pages.
const PROGRAM: [u8; 28] = [
    0x66, 0xb8, 12, 0, 0, 0, // mov $12, %eax
    0x66, 0x31, 0xd2, // xor %edx, %edx
    0x0f, 0x01, 0xd9, // vmmcall
    0x66, 0xb8, 12, 0, 0, 0, // mov $12, %eax
    0x66, 0x31, 0xd2, // xor %edx, %edx
    0xb2, 0x10, // mov $16, %dl
    0x0f, 0x01, 0xd9, // vmmcall
    0xeb, 0xe4, // jmp to the first
];

/// 1 GiB of guest memory, and what has to follow when its first bytes change.
pub(crate) struct Private {
    shared: *mut c_void,
    file: OwnedFd,
    containers: Containers,
    bytes: usize,
    vcpu: VcpuFd,
    vm: VmFd,
}

impl Private {
    /// Made private, with the guest's wish to share it before us.
    pub(crate) fn new(groups: &[String], bytes: usize) -> io::Result<Self> {
        let vm = Kvm::new()?.create_vm_with_type(VM_TYPE)?;
        vm.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_EXIT_HYPERCALL,
            args: [1 << MAP_GPA_RANGE, 0, 0, 0],
            ..Default::default()
        })?;
        let file = vm.create_guest_memfd(kvm_create_guest_memfd {
            size: GIB as u64,
            ..Default::default()
        })?;
        let shared = reserve(libc::PROT_READ | libc::PROT_WRITE)?;
        // Whether the host takes the advice does not matter.
        let _ = advise(shared, GIB, libc::MADV_HUGEPAGE);
        let memory = kvm_userspace_memory_region2 {
            slot: 1,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: GUEST,
            memory_size: GIB as u64,
            userspace_addr: shared.expose_provenance() as u64,
            guest_memfd: u32::try_from(file).map_err(|_| io::ErrorKind::InvalidData)?,
            ..Default::default()
        };
        // SAFETY: nothing in this program looks into the memory, and it stays as long as the program runs.
        unsafe { vm.set_user_memory_region2(memory) }?;
        let mut extent = Self {
            shared,
            // SAFETY: the descriptor is fresh.
            file: unsafe { OwnedFd::from_raw_fd(file) },
            containers: Containers::open(groups)?,
            bytes,
            vcpu: boot(&vm, bytes)?,
            vm,
        };
        extent.set(KVM_MEMORY_ATTRIBUTE_PRIVATE.into())?;
        extent.next_wish(0)?;
        Ok(extent)
    }

    fn set(&self, attributes: u64) -> io::Result<()> {
        Ok(self.vm.set_memory_attributes(kvm_memory_attributes {
            address: GUEST,
            size: self.bytes as u64,
            attributes,
            flags: 0,
        })?)
    }

    /// Answers the guest, and waits until it wishes for this.
    fn next_wish(&mut self, attributes: u64) -> io::Result<()> {
        match self.vcpu.run()? {
            VcpuExit::Hypercall(wish) if wish.nr == MAP_GPA_RANGE => {
                *wish.ret = 0;
                let bytes = self.bytes as u64;
                match wish.args[..3] == [GUEST, bytes / 4096, attributes] {
                    true => Ok(()),
                    false => Err(io::Error::other("the guest asks for something else")),
                }
            }
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }
}

impl Extent for Private {
    fn share(&mut self) -> io::Result<()> {
        self.set(0)?;
        punch(self.file.as_fd(), self.bytes)?;
        self.containers.map(self.shared, GUEST, self.bytes)?;
        self.next_wish(PRIVATE)
    }

    fn unshare(&mut self) -> io::Result<()> {
        self.containers.unmap(GUEST, self.bytes)?;
        self.set(KVM_MEMORY_ATTRIBUTE_PRIVATE.into())?;
        advise(self.shared, self.bytes, libc::MADV_DONTNEED)?;
        self.next_wish(0)
    }
}

/// A vCPU before the first instruction of [`PROGRAM`], which is at the VM's address 0.
fn boot(vm: &VmFd, bytes: usize) -> io::Result<VcpuFd> {
    let program = reserve(libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: the range was reserved a moment ago, is longer than the program, and nothing else knows it.
    unsafe { program.cast::<[u8; 28]>().write(PROGRAM) };
    let memory = kvm_userspace_memory_region2 {
        memory_size: 4096,
        userspace_addr: program.expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: nothing in this program looks into the memory, and it stays as long as the program runs.
    unsafe { vm.set_user_memory_region2(memory) }?;
    let vcpu = vm.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs {
        rbx: GUEST,
        rcx: (bytes / 4096) as u64,
        // The bit that is always set.
        rflags: 2,
        ..Default::default()
    })?;
    Ok(vcpu)
}
