//! The rate of the guests' time stamp counters.
#![expect(unsafe_code, reason = "an ioctl that kvm-ioctls has for vCPUs only")]

use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_val;
use vmm_sys_util::ioctl_io_nr;

use crate::error::ioctl;
use crate::{Error, Vm};

ioctl_io_nr!(KVM_SET_TSC_KHZ, 0xae, 0xa2);

/// The host's own rate, as it knows it now.
const OF_THE_HOST: libc::c_ulong = 0;

impl Vm {
    /// Has the time stamp counters of all processors run at the host's rate. Before the first vCPU.
    ///
    /// That is what VMs get without a word, but by a rate that KVM noted when it came up. A host measures its rate
    /// more closely after its boot, and where KVM is built in, processors cannot scale the counter and the note is
    /// low by more than 250 ppm, `kvm_set_tsc_khz()` (arch/x86/kvm/x86.c) fails for each vCPU without telling: KVM
    /// then takes the counter for 0, and every timer of the guest comes late by the time since the host's boot.
    ///
    /// # Errors
    /// When KVM refuses. One that cannot set the rate of a VM (Linux before 5.16) is left as it is.
    pub fn keep_tsc_rate(&self) -> Result<(), Error> {
        let operation = "have the guest's time stamp counters run at the host's rate";
        let set = ioctl("KVM_SET_TSC_KHZ", operation, || {
            // SAFETY: the argument is a number.
            match unsafe { ioctl_with_val(self.fd(), KVM_SET_TSC_KHZ(), OF_THE_HOST) } {
                0 => Ok(()),
                _ => Err(errno::Error::last()),
            }
        });
        match set {
            Err(Error::Ioctl { source, .. }) if source.raw_os_error() == Some(libc::ENOTTY) => {
                tracing::debug!("this KVM sets no rate of a VM's time stamp counters");
                Ok(())
            }
            other => other,
        }
    }
}
