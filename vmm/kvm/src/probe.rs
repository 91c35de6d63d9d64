//! What this host's KVM offers, asked without leaving anything behind.

use std::io;

use kvm_ioctls::Kvm;

/// What KVM offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// `KVM_GET_API_VERSION`; 12 since Linux 2.6.22.
    pub api: u32,
    /// Widest IPA space, `KVM_CAP_ARM_VM_IPA_SIZE`; `None` on other architectures and on arm64
    /// kernels that only have 40 bits.
    pub ipa_bits_max: Option<u8>,
    /// Whether user space can answer SMCCC calls (the VM attribute `KVM_ARM_VM_SMCCC_FILTER`).
    pub smccc_filter: bool,
}

/// Why KVM cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no `/dev/kvm`, or no driver behind it.
    #[error("this host has no KVM: /dev/kvm is absent")]
    Absent,
    /// The caller may not open it.
    #[error("no permission to open /dev/kvm")]
    NoPermission,
    /// Opening it fails for another reason.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// It does not answer as KVM does.
    #[error("/dev/kvm answers {0} to KVM_GET_API_VERSION")]
    NotKvm(i32),
}

/// Asks KVM what it offers.
///
/// On arm64 this creates a VM for a moment: the SMCCC filter is an attribute of VMs.
///
/// # Errors
/// When `/dev/kvm` cannot be opened or is not KVM.
pub fn probe() -> Result<Probe, ProbeError> {
    let kvm = Kvm::new().map_err(|errno| open_error(errno.into()))?;
    let answer = kvm.get_api_version();
    let api = u32::try_from(answer).map_err(|_| ProbeError::NotKvm(answer))?;
    Ok(Probe {
        api,
        ipa_bits_max: ipa_bits_max(&kvm),
        smccc_filter: smccc_filter(&kvm),
    })
}

fn open_error(error: io::Error) -> ProbeError {
    const ENODEV: i32 = 19;
    const ENXIO: i32 = 6;
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, Some(ENODEV | ENXIO)) => ProbeError::Absent,
        (io::ErrorKind::PermissionDenied, _) => ProbeError::NoPermission,
        _ => ProbeError::Open(error),
    }
}

#[cfg(target_arch = "aarch64")]
fn ipa_bits_max(kvm: &Kvm) -> Option<u8> {
    let bits = u8::try_from(kvm.get_host_ipa_limit()).ok()?;
    (bits != 0).then_some(bits)
}

#[cfg(not(target_arch = "aarch64"))]
fn ipa_bits_max(_kvm: &Kvm) -> Option<u8> {
    None
}

#[cfg(target_arch = "aarch64")]
fn smccc_filter(kvm: &Kvm) -> bool {
    use kvm_bindings::{KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, kvm_device_attr};

    // KVM's smallest, which every host with the capability allows; type 0 where it lacks it. The
    // widest costs seconds on an emulated host, whose kernel then builds a large root table.
    let smallest = ipa_bits_max(kvm).map_or(0, |_| 32);
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_ARM_VM_SMCCC_CTRL,
        attr: u64::from(KVM_ARM_VM_SMCCC_FILTER),
        addr: 0,
    };
    kvm.create_vm_with_ipa_size(smallest)
        .is_ok_and(|vm| vm.has_device_attr(&attribute).is_ok())
}

#[cfg(not(target_arch = "aarch64"))]
fn smccc_filter(_kvm: &Kvm) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_and_refusal_are_told_apart() {
        let os = io::Error::from_raw_os_error;
        assert!(matches!(open_error(os(2)), ProbeError::Absent));
        assert!(matches!(open_error(os(19)), ProbeError::Absent));
        assert!(matches!(open_error(os(13)), ProbeError::NoPermission));
        assert!(matches!(open_error(os(1)), ProbeError::NoPermission));
        assert!(matches!(open_error(os(24)), ProbeError::Open(_)));
    }
}
