//! The time stamp counter, whose frequency KVM tells (Documentation/virt/kvm/x86/msr.rst of Linux).

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::mmio;

/// Where CPUID tells of a hypervisor, and where of KVM's features.
const HYPERVISOR: u32 = 0x4000_0000;
const FEATURES: u32 = 0x4000_0001;
/// `KVM_FEATURE_CLOCKSOURCE2`: the clock's page is named by this register.
const CLOCK: u32 = 1 << 3;
const MSR_CLOCK: u32 = 0x4b56_4d01;
/// What is taken for true where nobody tells: the emulator's counter.
const OTHERWISE: u64 = 1_000_000_000;

/// Fields of the clock's page.
const MULTIPLIER: u64 = 24;
const SHIFT: u64 = 28;

#[repr(align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: the hypervisor writes it, and it is only read by volatile loads.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; 4096]));
static FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// Ticks since some time.
pub fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Ticks per second.
pub fn frequency() -> u64 {
    let known = FREQUENCY.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let found = told().unwrap_or(OTHERWISE);
    FREQUENCY.store(found, Ordering::Relaxed);
    found
}

/// The clock's page says by how much a tick advances its nanoseconds: as a fraction of 32 bits, after a
/// shift of the ticks.
fn told() -> Option<u64> {
    let signature = __cpuid(HYPERVISOR);
    let words = [signature.ebx, signature.ecx, signature.edx];
    let kvm = [*b"KVMK", *b"VMKV", *b"M\0\0\0"].map(u32::from_le_bytes);
    if words != kvm || __cpuid(FEATURES).eax & CLOCK == 0 {
        return None;
    }
    let page = PAGE.0.get() as u64;
    super::write_msr(MSR_CLOCK, page | 1);
    let multiplier = u128::from(mmio::read32(page + MULTIPLIER));
    let shift = mmio::read8(page + SHIFT).cast_signed();
    super::write_msr(MSR_CLOCK, 0);
    let unshifted = (1_000_000_000u128 << 32).checked_div(multiplier)?;
    let frequency = match shift {
        0.. => unshifted >> shift,
        _ => unshifted << -shift,
    };
    u64::try_from(frequency).ok()
}
