//! Calls to KVM (`Documentation/virt/kvm/x86/hypercalls.rst` of Linux).

use core::arch::asm;

/// Bytes of the smallest unit of a state.
pub const PAGE: u64 = 4096;

/// A leaf of CPUID.
struct Leaf {
    eax: u32,
    ebx: u32,
    ecx: u32,
    edx: u32,
}

/// What the processor says of itself in the leaf `function`.
fn cpuid(function: u32) -> Leaf {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: the instruction changes these registers only; rbx, which the compiler keeps for itself,
    // is put back.
    unsafe {
        asm!(
            "mov {0}, rbx",
            "cpuid",
            "xchg {0}, rbx",
            out(reg) ebx,
            inout("eax") function => eax, inout("ecx") 0 => ecx, out("edx") edx,
            options(nostack, preserves_flags)
        );
    }
    Leaf {
        eax,
        ebx: ebx as u32,
        ecx,
        edx,
    }
}

/// Whether the guest is to tell KVM which of its pages are private
/// (`KVM_FEATURE_HC_MAP_GPA_RANGE`).
pub fn maps_gpa_ranges() -> bool {
    const SIGNATURE: u32 = 0x4000_0000;
    const FEATURES: u32 = 0x4000_0001;
    const HC_MAP_GPA_RANGE: u32 = 1 << 16;
    let signature = cpuid(SIGNATURE);
    let kvm = [b"KVMK", b"VMKV", b"M\0\0\0"].map(|part| u32::from_le_bytes(*part));
    [signature.ebx, signature.ecx, signature.edx] == kvm
        && signature.eax >= FEATURES
        && cpuid(FEATURES).eax & HC_MAP_GPA_RANGE != 0
}

/// Calls KVM: `arguments` are in rbx, rcx and rdx. Returns what is not negative, or minus an error
/// number.
pub fn call(number: u64, arguments: [u64; 3]) -> i64 {
    let [first, second, third] = arguments;
    let amd = matches!(&cpuid(0).ebx.to_le_bytes(), b"Auth" | b"Hygo");
    let result: i64;
    macro_rules! call {
        ($instruction:literal) => {
            // SAFETY: the calls of this guest change the state of pages that it owns; rbx, which the
            // compiler keeps for itself, is put back.
            unsafe {
                asm!(
                    "xchg {0}, rbx",
                    $instruction,
                    "xchg {0}, rbx",
                    inout(reg) first => _,
                    inout("rax") number => result, in("rcx") second, in("rdx") third,
                    options(nostack)
                )
            }
        };
    }
    match amd {
        true => call!("vmmcall"),
        false => call!("vmcall"),
    }
    result
}

/// `KVM_HC_MAP_GPA_RANGE`, with the attributes as they are given.
pub fn map_gpa_range_with(gpa: u64, pages: u64, attributes: u64) -> i64 {
    const MAP_GPA_RANGE: u64 = 12;
    call(MAP_GPA_RANGE, [gpa, pages, attributes])
}

/// Asks for `pages` pages of 4 KiB from `gpa` to be private or shared. Returns 0, or minus an error
/// number.
pub fn map_gpa_range(gpa: u64, pages: u64, private: bool) -> i64 {
    const PRIVATE: u64 = 1 << 4;
    map_gpa_range_with(gpa, pages, if private { PRIVATE } else { 0 })
}
