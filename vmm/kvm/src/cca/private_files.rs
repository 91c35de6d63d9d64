//! Series v15: a guest_memfd keeps the state of its pages, and its state is left as it starts.
//!
//! ```text
//!                     KVM                              here
//!   to shared    RIPAS change ─► fault ─►  hole in the guest_memfd   ─► KVM_RUN commits it
//!   to private   RIPAS change ─► fault ─►  hole in the shared memory ─► KVM_RUN commits it
//! ```
//! Which form a Realm's access means is in its address, and whether a private page is there is the RMM's to say:
//! KVM of this series looks at the state in the guest_memfd for the populate call, which wants pages that are
//! private, and for holes. All pages are private, in a file made without flags.
//!
//! The state must stay private. A hole in a file takes away the mappings of the state that its pages are in;
//! a page that is marked shared and was faulted in again as a private one would go back to the host while
//! the RMM still has it.
//!
//! Later kernels have the shared form in the same file, and no other (`KVM_MEMSLOT_GMEM_ONLY`, the
//! in-place conversion series after its v8); they are told from this one and not used. What is said here was
//! read, and is in docs/platforms/cca.md.
#![expect(unsafe_code, reason = "an ioctl that kvm-ioctls does not have")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use iommu::{Gpa, PageRange};
use kvm_bindings::KVM_MEMORY_ATTRIBUTE_PRIVATE;
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use super::{RealmLack, populate};
use crate::error::ioctl;
use crate::ram::{GuestRam, SharedForm};
use crate::{Error, Vm, VmKind};

/// `struct kvm_memory_attributes2`, as a guest_memfd takes it: offsets in the file. The kernel writes
/// `error_offset` where it fails.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    offset: u64,
    size: u64,
    attributes: u64,
    flags: u64,
    error_offset: u64,
    reserved: [u64; 11],
}
const _: () = assert!(size_of::<Attributes>() == 128);

ioctl_iowr_nr!(KVM_SET_MEMORY_ATTRIBUTES2, 0xae, 0xd2, Attributes);

/// Finds out whether the kernel has this form, with a Realm that has nothing yet; `page` is where a page
/// may be.
///
/// # Errors
/// What it lacks.
pub(super) fn find(vm: &Vm, page: PageRange<Gpa>) -> Result<(), RealmLack> {
    let file = vm.guest_memfd(page.bytes());
    let file = file.map_err(|_| RealmLack::GuestMemfd)?;
    keep_private(file.as_fd(), page.bytes()).map_err(|_| RealmLack::PageStates)?;
    if !populate::is_certain(vm) {
        return Err(RealmLack::Form);
    }
    match shares_other_memory(vm.ipa_bits(), page) {
        true => Ok(()),
        false => Err(RealmLack::InPlace),
    }
}

/// Makes the first `bytes` bytes of `file` what they are: private. A file that keeps no states refuses.
fn keep_private(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Error> {
    let mut request = Attributes {
        size: bytes,
        attributes: u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE),
        ..Attributes::default()
    };
    let operation = "have private memory keep the state of its pages";
    ioctl("KVM_SET_MEMORY_ATTRIBUTES2", operation, || {
        // SAFETY: the kernel reads and writes one `Attributes`.
        let done = unsafe {
            ioctl_with_mut_ref(
                &file.as_raw_fd(),
                KVM_SET_MEMORY_ATTRIBUTES2(),
                &mut request,
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(errno::Error::last()),
        }
    })
}

/// Whether the shared form of a Realm's pages can be other memory than the guest_memfd's. A Realm's slot is
/// taken in either case, and an ordinary VM's tells: KVM of arm64 gives one a guest_memfd as its
/// memory only where the file is all that the slot has, and a file that nobody can map is that where every
/// file is. Where it cannot be found out the answer is no.
fn shares_other_memory(ipa_bits: u8, page: PageRange<Gpa>) -> bool {
    let taken = || -> Result<(), Error> {
        let vm = Vm::create(VmKind::Plain, ipa_bits)?;
        let file = vm.guest_memfd(page.bytes())?;
        let ram = GuestRam::with_private(&[page], vec![file], SharedForm::SmallPages);
        let ram = ram.map_err(|_| Error::Missing("memory for a slot"))?;
        vm.add_ram(&Arc::new(ram))
    };
    match taken() {
        Err(Error::Slot { source, .. }) => source.raw_os_error() == Some(libc::EINVAL),
        _ => false,
    }
}
