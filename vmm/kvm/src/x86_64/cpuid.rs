//! What a guest is told of its processors by `cpuid`.
//!
//! KVM says what it can offer on this host. Of that a guest gets all but nested virtualization, with
//! its own topology: one package, a core for each vCPU, no threads.
//!
//! ```text
//! x2APIC id = index of the vCPU:   | core, as many bits as the count needs |
//! ```

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};

use crate::error::ioctl;
use crate::{Error, Vcpu, Vm, VmKind};

/// The processors of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors {
    /// How many: 1 or more.
    pub count: u32,
    /// The width of guest-physical addresses: what no processor can address beyond.
    pub physical_bits: u8,
}

/// What KVM can tell a guest on this host.
#[derive(Debug, Clone)]
pub struct Cpuid(Vec<kvm_cpuid_entry2>);

impl Cpuid {
    /// Asks KVM, for the guest of `vm`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn supported(vm: &Vm) -> Result<Self, Error> {
        let operation = "tell what processors it can offer";
        let supported = ioctl("KVM_GET_SUPPORTED_CPUID", operation, || {
            vm.kvm().get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        })?;
        let mut leaves = supported.as_slice().to_vec();
        if vm.kind() == VmKind::SwProtected {
            offer_conversions(&mut leaves);
        }
        Ok(Self(leaves))
    }

    /// As if KVM had offered these.
    #[cfg(test)]
    pub(crate) fn from_leaves(leaves: Vec<kvm_cpuid_entry2>) -> Self {
        Self(leaves)
    }

    /// The leaf with this function, and with this index where it has several.
    pub(crate) fn leaf(&self, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        let mut leaves = self.0.iter();
        leaves.find(|leaf| (leaf.function, leaf.index) == (function, index))
    }

    /// The number of the address bit by which an SEV guest tells encrypted memory from other memory, where
    /// the host has such guests (AMD, CPUID 8000_001FH EBX\[5:0\]).
    #[must_use]
    pub fn encryption_bit(&self) -> Option<u8> {
        const ENCRYPTION: u32 = 0x8000_001f;
        let leaf = leaf(&self.0, ENCRYPTION)?;
        // Six bits.
        Some((leaf.ebx & 0x3f) as u8).filter(|bit| *bit != 0)
    }

    /// The same for the vCPU with this index.
    pub(crate) fn of(&self, index: u32, processors: Processors) -> Vec<kvm_cpuid_entry2> {
        let mut leaves = self.0.clone();
        leaves.retain(|leaf| !dropped(leaf.function));
        let vendor = Vendor::of(&leaves);
        for leaf in &mut leaves {
            adapt(leaf, index, processors, vendor);
        }
        let last = |function: u32| leaf(&leaves, function).map_or(0, |leaf| leaf.eax);
        let topology = TOPOLOGY.into_iter().filter(|leaf| *leaf <= last(0));
        let topology: Vec<_> = topology
            .flat_map(|function| topology_leaf(function, index, processors.count))
            .collect();
        leaves.extend(topology);
        leaves
    }
}

impl Vcpu {
    /// Tells the guest what this processor is: the one with `index` among `processors`.
    ///
    /// # Errors
    /// When KVM does not take it.
    pub(super) fn set_cpuid(
        &self,
        supported: &Cpuid,
        index: u32,
        processors: Processors,
    ) -> Result<(), Error> {
        let leaves = CpuId::from_entries(&supported.of(index, processors));
        let leaves =
            leaves.map_err(|_| Error::Missing("room for what a processor says of itself"))?;
        ioctl("KVM_SET_CPUID2", "say what a vCPU is", || {
            self.fd().set_cpuid2(&leaves)
        })
    }
}

/// Tells the guest that it is to say which of its pages are private. KVM, to which the call is unknown
/// unless it is handed on, leaves the bit out.
fn offer_conversions(leaves: &mut [kvm_cpuid_entry2]) {
    /// `KVM_CPUID_FEATURES`.
    const FEATURES: u32 = 0x4000_0001;
    /// `KVM_FEATURE_HC_MAP_GPA_RANGE`.
    const MAP_GPA_RANGE: u32 = 1 << 16;
    for leaf in leaves.iter_mut().filter(|leaf| leaf.function == FEATURES) {
        leaf.eax |= MAP_GPA_RANGE;
    }
}

/// Leaves of topology by levels (Intel SDM, CPUID 0BH and 1FH), on processors of either vendor.
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];

/// Leaves that the guest gets in another form or not at all.
fn dropped(function: u32) -> bool {
    /// SVM of nested guests.
    const SVM: u32 = 0x8000_000a;
    /// AMD's own form of topology by levels, which would be the host's.
    const EXTENDED_TOPOLOGY: u32 = 0x8000_0026;
    TOPOLOGY.contains(&function) || matches!(function, SVM | EXTENDED_TOPOLOGY)
}

fn leaf(leaves: &[kvm_cpuid_entry2], function: u32) -> Option<&kvm_cpuid_entry2> {
    leaves.iter().find(|leaf| leaf.function == function)
}

/// Whose topology leaves count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    /// AMD and Hygon.
    Amd,
    /// Intel and those that do as Intel does.
    Other,
}

impl Vendor {
    fn of(leaves: &[kvm_cpuid_entry2]) -> Self {
        let name = leaf(leaves, 0).map(|leaf| leaf.ebx.to_le_bytes());
        match name.as_ref() {
            Some(b"Auth" | b"Hygo") => Self::Amd,
            _ => Self::Other,
        }
    }
}

/// Bits of leaf 1.
const VMX: u32 = 1 << 5;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const SEVERAL_PROCESSORS: u32 = 1 << 28;
/// Bits of leaf 0x8000_0001.
const CORES_IN_LEAF_8: u32 = 1 << 1;
const NESTED_SVM: u32 = 1 << 2;

fn adapt(leaf: &mut kvm_cpuid_entry2, index: u32, processors: Processors, vendor: Vendor) {
    let count = processors.count;
    let (several, core_bits) = (count > 1, core_bits(count));
    match leaf.function {
        1 => {
            let (id, ids) = (index.min(0xff), (1 << core_bits).min(0xff_u32));
            leaf.ebx = leaf.ebx & 0xffff | ids << 16 | id << 24;
            // The local APIC in the kernel has both, whatever the host's has.
            leaf.ecx = leaf.ecx & !VMX | HYPERVISOR | X2APIC | TSC_DEADLINE;
            set(&mut leaf.edx, SEVERAL_PROCESSORS, several);
        }
        // Caches: of a core up to the second level, of the package beyond.
        4 if leaf.eax & 0x1f != 0 => {
            let cores = (1 << core_bits).min(0x40_u32) - 1;
            leaf.eax = leaf.eax & 0x3fff | sharers(leaf.eax, count) << 14 | cores << 26;
        }
        0x8000_001d if leaf.eax & 0x1f != 0 => {
            leaf.eax = leaf.eax & 0x3fff | sharers(leaf.eax, count) << 14;
        }
        0x8000_0001 => {
            leaf.ecx &= !NESTED_SVM;
            set(
                &mut leaf.ecx,
                CORES_IN_LEAF_8,
                several && vendor == Vendor::Amd,
            );
        }
        0x8000_0008 => {
            // The width for guests of the guest is the same.
            leaf.eax = leaf.eax & 0xff00 | u32::from(processors.physical_bits);
            if vendor == Vendor::Amd {
                leaf.ecx = (count - 1).min(0xff) | core_bits << 12;
            }
        }
        // One thread to a core, one node.
        0x8000_001e => {
            (leaf.eax, leaf.ebx) = (index, index & 0xff);
            (leaf.ecx, leaf.edx) = (0, 0);
        }
        _ => {}
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    match on {
        true => *register |= bit,
        false => *register &= !bit,
    }
}

/// How many bits of the x2APIC id name the core.
fn core_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// How many processors share the cache of which this is register `eax`, minus 1.
fn sharers(eax: u32, count: u32) -> u32 {
    let level = eax >> 5 & 7;
    match level {
        0..=2 => 0,
        _ => ((1 << core_bits(count)) - 1).min(0xfff_u32),
    }
}

/// Level 0: threads of a core; level 1: cores of the package; level 2: none.
fn topology_leaf(function: u32, index: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let level = |level: u32, shift: u32, below: u32, kind: u32| kvm_cpuid_entry2 {
        function,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: below,
        ecx: level | kind,
        edx: index,
        ..Default::default()
    };
    [
        level(0, 0, 1, THREADS),
        level(1, core_bits(count), count, CORES),
        level(2, 0, 0, 0),
    ]
}

/// A leaf as KVM may offer it.
#[cfg(test)]
pub(crate) fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
    let [eax, ebx, ecx, edx] = registers;
    kvm_cpuid_entry2 {
        function,
        index,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
