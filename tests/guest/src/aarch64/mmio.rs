//! Loads and stores that are made exactly as written: devices, and memory that others share.

use core::arch::asm;

macro_rules! access {
    ($read:ident, $load:literal, $write:ident, $store:literal, $kind:ty) => {
        /// Loads from `address`.
        pub fn $read(address: u64) -> $kind {
            let value: u64;
            // SAFETY: page tables map every address; one that is no memory of ours is a device or
            // aborts, and neither can break what the compiler knows.
            unsafe { asm!($load, out(reg) value, in(reg) address, options(nostack, readonly)) };
            value as $kind
        }

        /// Stores to `address`: not in the image, the stack or the device tree.
        pub fn $write(address: u64, value: $kind) {
            let value = value as u64;
            // SAFETY: as above; callers store to devices and to pages that they own.
            unsafe { asm!($store, in(reg) value, in(reg) address, options(nostack)) };
        }
    };
}

access!(read8, "ldrb {0:w}, [{1}]", write8, "strb {0:w}, [{1}]", u8);
access!(
    read16,
    "ldrh {0:w}, [{1}]",
    write16,
    "strh {0:w}, [{1}]",
    u16
);
access!(read32, "ldr {0:w}, [{1}]", write32, "str {0:w}, [{1}]", u32);
access!(read64, "ldr {0}, [{1}]", write64, "str {0}, [{1}]", u64);

/// Waits until every access before this has happened.
pub fn barrier() {
    // SAFETY: a barrier changes nothing.
    unsafe { asm!("dsb sy", options(nostack)) };
}
