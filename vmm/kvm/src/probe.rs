//! What this host's KVM offers, asked without leaving anything behind.

use std::io;

use hostcall::gate;
use kvm_ioctls::Kvm;

use crate::cca::{self, RealmAbi, RealmLack};
use crate::protected::{self, ProtectedLack};
use crate::sw_protected::{self, SwProtectedLack};

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
    /// How Realms of Arm CCA are made, or why they cannot be.
    pub realms: Result<RealmAbi, RealmLack>,
    /// Whether pKVM makes protected VMs, or why not.
    pub protected: Result<(), ProtectedLack>,
    /// Which types of VM KVM says that it makes, a bit for each by its number (`KVM_CAP_VM_TYPES`); none
    /// on arm64, where the type of a VM says more than that.
    pub vm_types: VmTypes,
    /// Whether there are VMs with private memory for development, or why not.
    pub sw_protected: Result<(), SwProtectedLack>,
}

/// Types of x86-64 VMs that KVM makes. It does not make one to say so: guests of SEV-SNP and TDs are made of
/// keys that a host has few of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VmTypes(u32);

impl VmTypes {
    /// Whether guests of AMD SEV-SNP are among them: `KVM_X86_SNP_VM`.
    #[must_use]
    pub const fn has_snp(self) -> bool {
        self.0 & 1 << 4 != 0
    }

    /// Whether TDs of Intel TDX are among them: `KVM_X86_TDX_VM`.
    #[must_use]
    pub const fn has_tdx(self) -> bool {
        self.0 & 1 << 5 != 0
    }
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
/// This creates VMs for a moment: which kinds of VM there are shows when one is made, and the SMCCC
/// filter of arm64 is an attribute of VMs.
///
/// # Errors
/// When `/dev/kvm` cannot be opened or is not KVM.
pub fn probe() -> Result<Probe, ProbeError> {
    gate("open /dev/kvm").map_err(open_error)?;
    let kvm = Kvm::new().map_err(|errno| open_error(errno.into()))?;
    let answer = kvm.get_api_version();
    let api = u32::try_from(answer).map_err(|_| ProbeError::NotKvm(answer))?;
    Ok(Probe {
        api,
        ipa_bits_max: ipa_bits_max(&kvm),
        smccc_filter: smccc_filter(&kvm),
        realms: usual_width(&kvm).map_or(Err(RealmLack::Architecture), cca::find),
        protected: usual_width(&kvm).map_or(Err(ProtectedLack::Architecture), protected::find),
        vm_types: vm_types(&kvm),
        sw_protected: match cfg!(target_arch = "x86_64") {
            true => sw_protected::find(),
            false => Err(SwProtectedLack::Architecture),
        },
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

#[cfg(target_arch = "x86_64")]
fn vm_types(kvm: &Kvm) -> VmTypes {
    let types = kvm.check_extension_raw(u64::from(kvm_bindings::KVM_CAP_VM_TYPES));
    VmTypes(u32::try_from(types).unwrap_or(0))
}

#[cfg(not(target_arch = "x86_64"))]
fn vm_types(_kvm: &Kvm) -> VmTypes {
    VmTypes::default()
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

/// The width at which kinds of VM are tried: what every arm64 kernel has, or the widest below it.
fn usual_width(kvm: &Kvm) -> Option<u8> {
    const USUAL: u8 = 40;
    cfg!(target_arch = "aarch64").then(|| ipa_bits_max(kvm).unwrap_or(USUAL).min(USUAL))
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
