//! The page that a vCPU shares with KVM, for what `VcpuFd` does not offer.
#![expect(unsafe_code, reason = "the page is memory shared with KVM")]

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;

use crate::Error;

/// A mapping of the first page of a vCPU's `kvm_run`, apart from the one that `VcpuFd` owns, so that
/// it can outlive that one and be shared between threads.
pub(crate) struct RunPage(NonNull<libc::c_void>);

const BYTES: usize = 4096;
const IMMEDIATE_EXIT: usize = offset_of!(kvm_run, immediate_exit);
const EXIT_REASON: usize = offset_of!(kvm_run, exit_reason);
/// The union of what the exits say.
const EXIT: usize = offset_of!(kvm_run, __bindgen_anon_1);
const _: () = assert!(IMMEDIATE_EXIT < BYTES && EXIT_REASON + size_of::<u32>() <= BYTES);
const _: () = assert!(EXIT_REASON.is_multiple_of(align_of::<AtomicU32>()));
const _: () = assert!(EXIT.is_multiple_of(align_of::<u64>()));

impl RunPage {
    pub(super) fn map(vcpu: &VcpuFd) -> Result<Self, Error> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BYTES,
                protection,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(page).filter(|page| page.as_ptr() != libc::MAP_FAILED) {
            Some(page) => Ok(Self(page)),
            None => Err(Error::Ioctl {
                operation: "share the run page of a vCPU",
                call: "mmap",
                source: io::Error::last_os_error(),
            }),
        }
    }

    /// Not 0: the next `KVM_RUN` returns at once.
    pub(super) fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the offset is within the page.
        let flag = unsafe { self.0.cast::<u8>().add(IMMEDIATE_EXIT) };
        // SAFETY: the page is mapped while `self` lives, a byte is always aligned, and this process
        // touches the flag through this reference only.
        unsafe { AtomicU8::from_ptr(flag.as_ptr()) }
    }

    /// Why the vCPU returned last: a `KVM_EXIT_*`.
    pub(super) fn exit_reason(&self) -> u32 {
        // SAFETY: the offset is within the page.
        let field = unsafe { self.0.byte_add(EXIT_REASON) }.cast::<u32>();
        // SAFETY: the page is mapped while `self` lives, the field is aligned (asserted above), and
        // KVM writes it only while the vCPU runs, on the thread that calls this.
        let reason = unsafe { AtomicU32::from_ptr(field.as_ptr()) };
        reason.load(Ordering::Relaxed)
    }

    /// The 64-bit field with this index in what the exit says: of which exit is the caller's to know.
    pub(crate) fn exit_u64<const INDEX: usize>(&self) -> u64 {
        const { assert!(EXIT + (INDEX + 1) * size_of::<u64>() <= BYTES) };
        // SAFETY: the offset is within the page.
        let field = unsafe { self.0.byte_add(EXIT + INDEX * size_of::<u64>()) }.cast::<u64>();
        // SAFETY: the page is mapped while `self` lives, the field is aligned (asserted above), and
        // KVM writes it only while the vCPU runs, on the thread that calls this.
        let field = unsafe { AtomicU64::from_ptr(field.as_ptr()) };
        field.load(Ordering::Relaxed)
    }

    /// Answers an exit in its 64-bit field with this index: of which exit is the caller's to know.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn set_exit_u64<const INDEX: usize>(&self, value: u64) {
        const { assert!(EXIT + (INDEX + 1) * size_of::<u64>() <= BYTES) };
        // SAFETY: the offset is within the page.
        let field = unsafe { self.0.byte_add(EXIT + INDEX * size_of::<u64>()) }.cast::<u64>();
        // SAFETY: the page is mapped while `self` lives, the field is aligned (asserted above), and
        // KVM reads and writes it only while the vCPU runs, on the thread that calls this.
        let field = unsafe { AtomicU64::from_ptr(field.as_ptr()) };
        field.store(value, Ordering::Relaxed);
    }

    /// The byte at this offset in what the exit says: of which exit is the caller's to know.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn exit_u8<const OFFSET: usize>(&self) -> u8 {
        const { assert!(EXIT + OFFSET < BYTES) };
        // SAFETY: the offset is within the page.
        let field = unsafe { self.0.byte_add(EXIT + OFFSET) }.cast::<u8>();
        // SAFETY: the page is mapped while `self` lives, a byte is always aligned, and KVM writes it
        // only while the vCPU runs, on the thread that calls this.
        let field = unsafe { AtomicU8::from_ptr(field.as_ptr()) };
        field.load(Ordering::Relaxed)
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the page any more, and only `map` makes one.
        unsafe { libc::munmap(self.0.as_ptr(), BYTES) };
    }
}

// SAFETY: the page is plain memory that belongs to no thread, and is touched by atomics only.
unsafe impl Send for RunPage {}
// SAFETY: as for `Send`.
unsafe impl Sync for RunPage {}
