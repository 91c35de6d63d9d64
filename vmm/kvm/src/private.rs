//! Memory that only the guest reaches: `guest_memfd`, and which pages are in it.
#![expect(unsafe_code, reason = "takes over a descriptor that KVM makes")]

use std::os::fd::{FromRawFd, OwnedFd};

use iommu::{Gpa, PageRange, Visibility};
use kvm_bindings::{KVM_MEMORY_ATTRIBUTE_PRIVATE, kvm_create_guest_memfd, kvm_memory_attributes};

use crate::error::ioctl;
use crate::{Error, Vm, VmKind};

impl Vm {
    /// A file of `bytes` bytes for private memory of this VM: this process can neither map nor read it.
    ///
    /// # Errors
    /// When VMs of this kind have no private memory, or the length is not whole pages.
    pub fn guest_memfd(&self, bytes: u64) -> Result<OwnedFd, Error> {
        let request = kvm_create_guest_memfd {
            size: bytes,
            ..Default::default()
        };
        let operation = "make a file for private guest memory";
        let file = ioctl("KVM_CREATE_GUEST_MEMFD", operation, || {
            self.fd().create_guest_memfd(request)
        })?;
        // SAFETY: KVM has just made the descriptor, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(file) })
    }

    /// Has the guest find the private or the shared form of the pages of `range` from now on. Of a Realm
    /// of [`RealmAbi::PrivateFiles`](crate::cca::RealmAbi::PrivateFiles) nobody is told: its own address says
    /// which form it means.
    ///
    /// # Errors
    /// When VMs of this kind have no private memory, or KVM has no memory to note it; every page is
    /// then as it was.
    pub fn set_visibility(&self, range: PageRange<Gpa>, to: Visibility) -> Result<(), Error> {
        if let VmKind::Realm(abi) = self.kind()
            && !abi.is_told_states()
        {
            return Ok(());
        }
        let attributes = match to {
            Visibility::Private => u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE),
            Visibility::Shared => 0,
        };
        let request = kvm_memory_attributes {
            address: range.start().raw(),
            size: range.bytes(),
            attributes,
            flags: 0,
        };
        let operation = "change which form of its memory the guest finds";
        ioctl("KVM_SET_MEMORY_ATTRIBUTES", operation, || {
            self.fd().set_memory_attributes(request)
        })
    }
}
