//! A processor of a TD: it starts where the TDX module has it start, and is what the module says.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::command::{Command, address, give};
use super::cpuid_list::{CpuidList, MOST_LEAVES};
use crate::error::ioctl;
use crate::{Error, Vcpu, Vm};

pub(super) fn create(vm: &Vm, index: u32, argument: u64) -> Result<Vcpu, Error> {
    let vcpu = Vcpu::add(vm, index)?;
    let leaves = CpuId::from_entries(&known_to_guest(&vcpu, index)?);
    let leaves = leaves.map_err(|_| Error::Missing("room for what a processor says of itself"))?;
    // Before INIT_VCPU: that needs the x2APIC, which KVM learns of here.
    ioctl("KVM_SET_CPUID2", "say what a vCPU of a TD is", || {
        vcpu.fd().set_cpuid2(&leaves)
    })?;
    give(vcpu.fd(), Command::InitVcpu, 0, argument)?;
    Ok(vcpu)
}

/// What the TDX module tells the guest without asking anybody: KVM has to know the same.
fn known_to_guest(vcpu: &Vcpu, index: u32) -> Result<Vec<kvm_cpuid_entry2>, Error> {
    let mut list = CpuidList::with_room(0, MOST_LEAVES);
    let data = address(list.words_mut());
    give(vcpu.fd(), Command::GetCpuid, 0, data)?;
    let mut leaves = list.leaves();
    // A leaf that is not there reads as zeros, and KVM has room for fewer than the module knows.
    leaves.retain(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx] != [0; 4]);
    leaves.iter_mut().for_each(|leaf| identify(leaf, index));
    Ok(leaves)
}

/// Puts the id of the local APIC where KVM looks for it. The module has its own for the guest: the same.
fn identify(leaf: &mut kvm_cpuid_entry2, index: u32) {
    const X2APIC: u32 = 1 << 21;
    match leaf.function {
        1 => {
            leaf.ebx = leaf.ebx & 0x00ff_ffff | index.min(0xff) << 24;
            leaf.ecx |= X2APIC;
        }
        0xb | 0x1f => leaf.edx = index,
        _ => {}
    }
}
