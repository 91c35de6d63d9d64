//! `KVM_ARM_RMI_POPULATE`: the one call of the later series. The first one makes the Realm.
#![expect(unsafe_code, reason = "an ioctl that kvm-ioctls does not have")]

use iommu::{Gpa, PageRange};
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_val};
use vmm_sys_util::ioctl_iowr_nr;

use super::{RealmHash, RealmParameters};
use crate::error::ioctl;
use crate::{Error, Vm};

/// By its name in the kernel.
const POPULATE: &str = "KVM_ARM_RMI_POPULATE";

/// `struct kvm_arm_rmi_populate`. The kernel moves `base`, `size` and `source_uaddr` on by what it has
/// done.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Populate {
    base: u64,
    size: u64,
    source_uaddr: u64,
    flags: u32,
    reserved: u32,
}
const _: () = assert!(size_of::<Populate>() == 32);

/// `KVM_ARM_RMI_POPULATE_FLAGS_MEASURE`.
const MEASURE: u32 = 1;

ioctl_iowr_nr!(KVM_ARM_RMI_POPULATE, 0xae, 0xd7, Populate);

/// These series have no way to set a parameter: the RMM's defaults hold.
pub(super) fn configure(parameters: &RealmParameters) -> Result<(), Error> {
    if parameters.hash != RealmHash::Sha256 {
        return Err(Error::Missing(
            "way to set the hash algorithm of a Realm: it is SHA-256",
        ));
    }
    if parameters.personalization.is_some() {
        return Err(Error::Missing(
            "way to set the personalization value of a Realm",
        ));
    }
    Ok(())
}

/// Copies `range` from `source`, an address of this process, and measures it.
pub(super) fn populate(vm: &Vm, range: PageRange<Gpa>, source: u64) -> Result<(), Error> {
    let mut rest = Populate {
        base: range.start().raw(),
        size: range.bytes(),
        source_uaddr: source,
        flags: MEASURE,
        reserved: 0,
    };
    while rest.size != 0 {
        let before = rest;
        match call(vm, &mut rest) {
            Err(Error::Ioctl { source, .. })
                if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) if rest.size >= before.size => {
                return Err(Error::NoProgress {
                    call: POPULATE,
                    at: Gpa::new(rest.base).into(),
                });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether the kernel may have the call: it looks at the alignment before anything else, and some
/// kernels say of calls that they do not have what others say of the alignment.
pub(super) fn is_known(vm: &Vm) -> bool {
    let mut misaligned = Populate {
        base: 1,
        size: iommu::PAGE_SIZE,
        source_uaddr: 0,
        flags: MEASURE,
        reserved: 0,
    };
    match call(vm, &mut misaligned) {
        Err(Error::Ioctl { source, .. }) => source.raw_os_error() != Some(libc::ENOTTY),
        _ => true,
    }
}

/// Whether the kernel has the call for certain: it looks for a structure where there is none.
pub(super) fn is_certain(vm: &Vm) -> bool {
    let asked = ioctl(POPULATE, "read the argument of a call", || {
        // SAFETY: nothing is at address 0: the kernel neither reads nor writes memory of this process.
        let done = unsafe { ioctl_with_val(vm.fd(), KVM_ARM_RMI_POPULATE(), 0) };
        match done {
            0 => Ok(()),
            _ => Err(errno::Error::last()),
        }
    });
    match asked {
        Err(Error::Ioctl { source, .. }) => source.raw_os_error() == Some(libc::EFAULT),
        _ => false,
    }
}

fn call(vm: &Vm, arguments: &mut Populate) -> Result<(), Error> {
    ioctl(POPULATE, "load a part of a Realm", || {
        // SAFETY: the kernel reads and writes one `Populate`, and reads the memory at its source, or
        // fails where there is none.
        let done = unsafe { ioctl_with_mut_ref(vm.fd(), KVM_ARM_RMI_POPULATE(), arguments) };
        match done {
            0 => Ok(()),
            _ => Err(errno::Error::last()),
        }
    })
}
