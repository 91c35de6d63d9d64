//! Loads and stores that are made exactly as written: devices, and memory that others share.

use core::arch::asm;

macro_rules! access {
    ($read:ident, $load:literal, $write:ident, $store:literal, $kind:ty) => {
        /// Loads from `address`.
        pub fn $read(address: u64) -> $kind {
            let value: u64;
            // SAFETY: page tables map every address; one that is no memory of ours is a device or
            // nothing, and neither can break what the compiler knows.
            unsafe { asm!($load, out(reg) value, in(reg) address, options(nostack, readonly)) };
            value as $kind
        }

        /// Stores to `address`: not in the image, the stack or the firmware's tables.
        pub fn $write(address: u64, value: $kind) {
            let value = value as u64;
            // SAFETY: as above; callers store to devices and to pages that they own.
            unsafe { asm!($store, in(reg) value, in(reg) address, options(nostack)) };
        }
    };
}

access!(
    read8,
    "movzx {0:e}, byte ptr [{1}]",
    write8,
    "mov byte ptr [{1}], {0:l}",
    u8
);
access!(
    read16,
    "movzx {0:e}, word ptr [{1}]",
    write16,
    "mov word ptr [{1}], {0:x}",
    u16
);
access!(
    read32,
    "mov {0:e}, dword ptr [{1}]",
    write32,
    "mov dword ptr [{1}], {0:e}",
    u32
);
access!(
    read64,
    "mov {0}, qword ptr [{1}]",
    write64,
    "mov qword ptr [{1}], {0}",
    u64
);

/// Waits until every access before this has happened.
pub fn barrier() {
    // SAFETY: a barrier changes nothing.
    unsafe { asm!("mfence", options(nostack)) };
}
