//! Memory whose shared pages have a second name in the VM, as an emulated Realm has it.
//!
//! ```text
//!   share    fallocate, mmap of the alias, mmap of the low address, VFIO_IOMMU_MAP_DMA in each group
//!   unshare  VFIO_IOMMU_UNMAP_DMA in each group, mmap, mmap and madvise, fallocate
//! ```
//! The memory is in slots of a VM, as a guest's is, and no guest runs.
#![expect(unsafe_code, reason = "takes over descriptors")]

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use libc::c_ulong;

use crate::Extent;
use crate::calls::{GIB, GUEST, advise, call, ioctl, ioctl_with, map, punch, reserve};
use crate::containers::Containers;

/// Numbers of ioctls (`include/uapi/linux/kvm.h`).
const KVM_CREATE_VM: c_ulong = 0xae01;
const KVM_SET_USER_MEMORY_REGION: c_ulong = 0x4020_ae46;

#[repr(C)]
struct Slot {
    number: u32,
    flags: u32,
    guest: u64,
    bytes: u64,
    host: u64,
}

/// 1 GiB of guest memory, and what has to follow when its first bytes change.
pub(crate) struct Aliased {
    low: *mut c_void,
    alias: *mut c_void,
    file: OwnedFd,
    containers: Containers,
    iova: u64,
    bytes: usize,
    _vm: OwnedFd,
}

impl Aliased {
    pub(crate) fn new(bit: u8, groups: &[String], bytes: usize) -> io::Result<Self> {
        let memfd = call(|| {
            // SAFETY: the name is a C string.
            unsafe { libc::memfd_create(c"floor".as_ptr(), libc::MFD_CLOEXEC) }
        })?;
        // SAFETY: the descriptor is fresh.
        let file = unsafe { OwnedFd::from_raw_fd(memfd) };
        call(|| {
            // SAFETY: changes the length of our file.
            unsafe { libc::ftruncate(memfd, 1 << 30) }
        })?;
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
        let vm = ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, u64::from(bit) + 1)?;
        // SAFETY: the descriptor is fresh.
        let vm = unsafe { OwnedFd::from_raw_fd(vm) };
        let aliased = Self {
            low: reserve(libc::PROT_READ | libc::PROT_WRITE)?,
            alias: reserve(libc::PROT_NONE)?,
            file,
            containers: Containers::open(groups)?,
            iova: GUEST | 1 << bit,
            bytes,
            _vm: vm,
        };
        for (number, guest, host) in [(0, GUEST, aliased.low), (1, aliased.iova, aliased.alias)] {
            let slot = Slot {
                number,
                flags: 0,
                guest,
                bytes: GIB as u64,
                host: host.expose_provenance() as u64,
            };
            ioctl_with(aliased._vm.as_raw_fd(), KVM_SET_USER_MEMORY_REGION, slot)?;
        }
        Ok(aliased)
    }
}

impl Extent for Aliased {
    fn share(&mut self) -> io::Result<()> {
        punch(self.file.as_fd(), self.bytes)?;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        for at in [self.alias, self.low] {
            map(at, self.bytes, protection, flags, self.file.as_raw_fd())?;
        }
        self.containers.map(self.low, self.iova, self.bytes)
    }

    fn unshare(&mut self) -> io::Result<()> {
        self.containers.unmap(self.iova, self.bytes)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        map(self.alias, self.bytes, libc::PROT_NONE, flags, -1)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        map(self.low, self.bytes, protection, flags, -1)?;
        // Whether the host takes the advice does not matter.
        let _ = advise(self.low, self.bytes, libc::MADV_HUGEPAGE);
        punch(self.file.as_fd(), self.bytes)
    }
}
