//! What the hypervisor of pKVM does for a protected VM (`Documentation/virt/kvm/arm/hypercalls.rst` of
//! Linux).

use super::smccc::{Conduit, call};

/// The hypervisor that protects this VM.
#[derive(Clone, Copy)]
pub struct Pkvm {
    granule: u64,
}

/// Functions.
const UID: u64 = 0x8600_ff01;
const FEATURES: u64 = 0x8600_0000;
const MEMINFO: u64 = 0xc600_0002;
const MEM_SHARE: u64 = 0xc600_0003;
const MEM_UNSHARE: u64 = 0xc600_0004;

/// Of the features: both calls of a protected VM.
const SHARES: u64 = 1 << 3 | 1 << 4;

impl Pkvm {
    /// The hypervisor, where it is one that shares pages for this VM.
    pub fn find(conduit: Conduit) -> Option<Self> {
        /// KVM's name for itself.
        const KVM: [u64; 4] = [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d];
        if conduit != Conduit::Hvc {
            return None;
        }
        let [first, second, third, fourth, ..] = hvc(UID, 0);
        let uid = [first, second, third, fourth].map(|word| word & 0xffff_ffff);
        if uid != KVM || hvc(FEATURES, 0)[0] & SHARES != SHARES {
            return None;
        }
        let granule = hvc(MEMINFO, 0)[0];
        granule.is_power_of_two().then_some(Self { granule })
    }

    /// Bytes of what one call changes.
    pub fn granule(self) -> u64 {
        self.granule
    }

    /// Shares the granule at `gpa`, or makes it private again. Returns 0, or an error number of SMCCC.
    pub fn set(self, gpa: u64, shared: bool) -> u64 {
        hvc(if shared { MEM_SHARE } else { MEM_UNSHARE }, gpa)[0]
    }

    /// A call that changes nothing.
    pub fn idle(self) {
        hvc(MEMINFO, 0);
    }
}

fn hvc(function: u64, argument: u64) -> [u64; 11] {
    let mut registers = [0; 11];
    registers[..2].copy_from_slice(&[function, argument]);
    call(Conduit::Hvc, registers)
}
