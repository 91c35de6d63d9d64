//! arm64: a flat image, a device tree, PSCI.

pub mod exception;
pub mod mmio;
pub mod mmu;
pub mod pkvm;
pub mod processor;
pub mod rsi;
pub mod serial;
pub mod smccc;
pub mod time;
mod tree;

pub use smccc::{Conduit as Platform, power_off};

core::arch::global_asm!(include_str!("start.s"));

/// Called by `start.s` with the addresses of the device tree and of the image.
#[unsafe(no_mangle)]
extern "C" fn guest_main(tree: *const u8, image: u64) -> ! {
    // SAFETY: the boot protocol puts the address of a device tree in x0, and nothing writes to it.
    let tree = unsafe { hermit_dtb::Dtb::from_raw(tree) };
    let Some(tree) = tree else {
        give_up();
    };
    let machine = tree::machine(&tree, image);
    mmu::map_all(&machine);
    serial::init(&machine);
    crate::run(&machine)
}

/// Powers off without knowing the machine.
pub fn give_up() -> ! {
    // One of the two is the conduit; the other is not answered.
    power_off(Platform::Smc)
}
