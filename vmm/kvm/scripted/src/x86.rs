//! What every x86-64 VM has: interrupt controllers, CPUID, registers.

use std::ffi::c_int;

use crate::host::{u32_at, u64_at};
use crate::vm::{Vcpu, VmState, Written};
use crate::{Errno, call, process};

/// Which interrupt controllers KVM has for a VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Irqchip {
    #[default]
    None,
    /// All of them.
    Full,
    /// Local APICs.
    Local,
}

/// Leaves of CPUID: function, index, EAX, EBX, ECX, EDX.
pub(crate) type Leaf = [u32; 6];

/// What this host's processors are: of AMD, by their name, with encrypted memory by bit 51.
const SUPPORTED: [Leaf; 7] = [
    [0, 0, 0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
    [1, 0, 0xa0_0f11, 0x800, 1 << 24 | 1 << 21, 0x0178_bfff],
    [0xd, 0, 7, 0x340, 0x340, 0],
    [0x8000_0000, 0, 0x8000_001f, 0, 0, 0],
    [0x8000_0001, 0, 0xa0_0f11, 0, 0x75c2_3fff, 0x2fd3_fbff],
    [0x8000_0008, 0, 0x0030_3030, 0, 0, 0],
    [0x8000_001f, 0, 0x1a, 51, 0, 0],
];

/// Bytes of a `struct kvm_cpuid_entry2`.
const LEAF_BYTES: usize = 40;

/// `KVM_GET_SUPPORTED_CPUID`: a list with room for some.
pub(crate) fn supported_cpuid(argument: u64) -> Result<c_int, Errno> {
    write_leaves(argument, &SUPPORTED)?;
    Ok(0)
}

/// Fills a `struct kvm_cpuid2` at `argument`.
pub(crate) fn write_leaves(argument: u64, leaves: &[Leaf]) -> Result<(), Errno> {
    let room = u32_at(&process::copy_in::<8>(argument)?, 0);
    let count = u32::try_from(leaves.len()).map_err(|_| libc::E2BIG)?;
    process::write(argument, &count.to_ne_bytes())?;
    if room < count {
        return Err(libc::E2BIG);
    }
    let words = leaves.iter().flat_map(|leaf| {
        let [function, index, registers @ ..] = *leaf;
        let [eax, ebx, ecx, edx] = registers;
        [function, index, 0, eax, ebx, ecx, edx, 0, 0, 0]
    });
    let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    process::write(argument.saturating_add(8), &bytes)
}

/// The leaves of a `struct kvm_cpuid2` at `argument`.
pub(crate) fn read_leaves(argument: u64) -> Result<Vec<Leaf>, Errno> {
    const MOST: usize = 256;
    let header: [u8; 8] = process::copy_in(argument)?;
    let count = usize::try_from(u32_at(&header, 0)).map_err(|_| libc::E2BIG)?;
    if count > MOST || u32_at(&header, 4) != 0 {
        return Err(libc::EINVAL);
    }
    let mut bytes = vec![0; count * LEAF_BYTES];
    process::read(argument.saturating_add(8), &mut bytes)?;
    let leaves = bytes.chunks_exact(LEAF_BYTES);
    Ok(leaves
        .map(|leaf| [0, 4, 12, 16, 20, 24].map(|at| u32_at(leaf, at)))
        .collect())
}

/// `struct kvm_enable_cap`: capability, flags, four arguments.
pub(crate) fn enable_cap(vm: &mut VmState, argument: u64) -> Result<Vec<Written>, Errno> {
    const SPLIT_IRQCHIP: u32 = 121;
    const EXIT_HYPERCALL: u32 = 201;
    let bytes: [u8; 104] = process::copy_in(argument)?;
    match (u32_at(&bytes, 0), u64_at(&bytes, 8)) {
        (EXIT_HYPERCALL, 0x1000) => {}
        (SPLIT_IRQCHIP, 0..=64) if vm.irqchip == Irqchip::None && vm.vcpus.is_empty() => {
            vm.irqchip = Irqchip::Local;
        }
        _ => return Err(libc::EINVAL),
    }
    Ok(Vec::new())
}

/// What makes interrupt controllers, and room for them.
pub(crate) fn irqchip_call(vm: &mut VmState, request: u64) -> Result<Vec<Written>, Errno> {
    if request == call::CREATE_IRQCHIP {
        if vm.irqchip != Irqchip::None || !vm.vcpus.is_empty() {
            return Err(libc::EEXIST);
        }
        vm.irqchip = Irqchip::Full;
    }
    Ok(Vec::new())
}

/// A call at a vCPU; `protected`: its registers are the guest's alone.
pub(crate) fn vcpu_call(
    vcpu: &mut Vcpu,
    protected: bool,
    request: u64,
    argument: u64,
) -> Result<c_int, Errno> {
    match request {
        call::SET_CPUID2 => {
            read_leaves(argument)?;
            vcpu.has_cpuid = true;
        }
        call::GET_REGS | call::GET_SREGS | call::SET_REGS | call::SET_SREGS if protected => {
            return Err(libc::EINVAL);
        }
        call::SET_MSRS if protected => return Err(libc::EINVAL),
        call::SET_MSRS => {
            let count = u32_at(&process::copy_in::<8>(argument)?, 0);
            return c_int::try_from(count).map_err(|_| libc::E2BIG);
        }
        call::GET_REGS => process::write(argument, &[0; 144])?,
        call::GET_SREGS => process::write(argument, &[0; 312])?,
        call::SET_REGS | call::SET_SREGS => {}
        _ => return Err(libc::ENOTTY),
    }
    Ok(0)
}

/// The details of some calls.
pub(crate) fn describe(request: u64, argument: u64) -> Result<String, Errno> {
    Ok(match request {
        call::SET_CPUID2 => format!("leaves {}", read_leaves(argument)?.len()),
        // RIP and RSI, of all that there is.
        call::SET_REGS => {
            let bytes: [u8; 144] = process::copy_in(argument)?;
            format!(
                "rip {:#x} rsi {:#x}",
                u64_at(&bytes, 128),
                u64_at(&bytes, 32)
            )
        }
        // Control registers and EFER, behind eight segments and two tables.
        call::SET_SREGS => {
            let bytes: [u8; 312] = process::copy_in(argument)?;
            let at = 8 * 24 + 2 * 16;
            let [cr0, cr3, cr4, efer] = [0, 16, 24, 40].map(|field| u64_at(&bytes, at + field));
            format!("cr0 {cr0:#x} cr3 {cr3:#x} cr4 {cr4:#x} efer {efer:#x}")
        }
        call::SIGNAL_MSI => {
            let bytes: [u8; 32] = process::copy_in(argument)?;
            format!("{:#x} {:#x}", u64_at(&bytes, 0), u32_at(&bytes, 8))
        }
        call::SET_MSRS | call::SET_GSI_ROUTING => {
            u32_at(&process::copy_in::<8>(argument)?, 0).to_string()
        }
        _ => String::new(),
    })
}
