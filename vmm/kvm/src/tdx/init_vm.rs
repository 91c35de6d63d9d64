//! What a TD is: `KVM_TDX_INIT_VM`.

use kvm_bindings::kvm_cpuid_entry2;

use super::Gpaw;
use super::capabilities::Capabilities;
use super::command::{Command, address, give};
use super::cpuid_list::CpuidList;
use crate::x86_64::Cpuid;
use crate::{Error, Vm};

/// Words of `struct kvm_tdx_init_vm` before its list: attributes, XFAM, three digests of six words each
/// that the owner could choose, 12 reserved.
const WORDS: usize = 2 + 3 * 6 + 12;
const ATTRIBUTES: usize = 0;
const XFAM: usize = 1;

/// Attribute `SEPT_VE_DISABLE`: an access to a private page that the guest has not accepted ends the TD
/// instead of reaching the guest as an exception that its host could cause at will. Linux insists.
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// Where the width of guest-physical addresses is: EAX\[23:16\] of this leaf.
const ADDRESS_SIZES: u32 = 0x8000_0008;

pub(super) fn init_vm(
    vm: &Vm,
    capabilities: &Capabilities,
    gpaw: Gpaw,
    supported: &Cpuid,
) -> Result<(), Error> {
    let leaves = configured(capabilities, gpaw, supported);
    let mut list = CpuidList::of(WORDS, &leaves);
    let words = list.words_mut();
    if let Some(attributes) = words.get_mut(ATTRIBUTES) {
        *attributes = capabilities.attributes & SEPT_VE_DISABLE;
    }
    if let Some(xfam) = words.get_mut(XFAM) {
        *xfam = capabilities.xfam;
    }
    let data = address(list.words_mut());
    give(vm.fd(), Command::InitVm, 0, data)
}

/// What KVM offers, as far as it can be configured: KVM takes no leaf and no bit beyond.
fn configured(capabilities: &Capabilities, gpaw: Gpaw, supported: &Cpuid) -> Vec<kvm_cpuid_entry2> {
    let configured = capabilities.cpuid.iter().map(|mask| {
        let offered = supported.leaf(mask.function, mask.index);
        let masked = |value: fn(&kvm_cpuid_entry2) -> u32| offered.map_or(0, value) & value(mask);
        let mut leaf = kvm_cpuid_entry2 {
            function: mask.function,
            index: mask.index,
            flags: mask.flags,
            eax: masked(|leaf| leaf.eax),
            ebx: masked(|leaf| leaf.ebx),
            ecx: masked(|leaf| leaf.ecx),
            edx: masked(|leaf| leaf.edx),
            ..Default::default()
        };
        if leaf.function == ADDRESS_SIZES {
            leaf.eax = leaf.eax & !(0xff << 16) | u32::from(gpaw.bits()) << 16;
        }
        leaf
    });
    configured.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, eax: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax,
            ecx,
            ..Default::default()
        }
    }

    #[test]
    fn what_kvm_offers_is_cut_to_what_can_be_configured() {
        let capabilities = Capabilities {
            attributes: 0,
            xfam: 0,
            cpuid: vec![leaf(1, 0, 0xff), leaf(ADDRESS_SIZES, 0x00ff_00ff, 0)],
        };
        let supported = vec![
            leaf(1, 0x1234, 0x1f0f),
            leaf(7, 1, 1),
            leaf(ADDRESS_SIZES, 0x0030_3934, 0),
        ];
        let supported = Cpuid::from_leaves(supported);
        let seen = |gpaw| {
            let leaves = configured(&capabilities, gpaw, &supported);
            let leaves = leaves.iter();
            leaves
                .map(|leaf| (leaf.function, leaf.eax, leaf.ecx))
                .collect::<Vec<_>>()
        };
        let narrow = [(1, 0, 0x0f), (ADDRESS_SIZES, 0x0030_0034, 0)];
        assert_eq!(seen(Gpaw::Bits48), narrow);
        assert_eq!(seen(Gpaw::Bits52)[1], (ADDRESS_SIZES, 0x0034_0034, 0));
    }
}
