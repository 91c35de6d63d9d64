//! Which calls of the guest come to user space.

use kvm_bindings::{
    KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, kvm_device_attr, kvm_smccc_filter,
    kvm_smccc_filter_action_KVM_SMCCC_FILTER_FWD_TO_USER as FORWARD,
};

use crate::error::ioctl;
use crate::{Error, Vm};

impl Vm {
    /// Forwards the `count` SMCCC functions from `base` to user space, whether made by `smc` or by
    /// `hvc`. Only before a vCPU has run.
    ///
    /// # Errors
    /// When KVM is older than Linux 6.4, the range overlaps another filter or the architecture's
    /// own calls, or a vCPU has run.
    pub fn smccc_filter_forward(&self, base: u32, count: u32) -> Result<(), Error> {
        let filter = kvm_smccc_filter {
            base,
            nr_functions: count,
            action: u8::try_from(FORWARD).unwrap_or(u8::MAX),
            ..Default::default()
        };
        let attribute = kvm_device_attr {
            group: KVM_ARM_VM_SMCCC_CTRL,
            attr: u64::from(KVM_ARM_VM_SMCCC_FILTER),
            addr: std::ptr::from_ref(&filter).expose_provenance() as u64,
            flags: 0,
        };
        let operation = "forward SMCCC calls to user space";
        ioctl("KVM_SET_DEVICE_ATTR", operation, || {
            self.fd().set_device_attr(&attribute)
        })
    }
}
