//! A bare-metal arm64 guest that tests what a VM really gets.
//!
//! It is booted as a kernel (`[boot] kernel`), does the test that its command line names, reports
//! `key=value` lines on the serial port, the last of them `result=pass` or `result=fail`, and powers
//! off. It knows where to find everything from its device tree only.
//!
//! ```text
//! test=facts              what the machine is (the default)
//! test=rsi-errors         the RMM's error codes for bad arguments
//! test=attestation        an attestation token, read in pieces
//! test=convert            sharing and unsharing: contents, states, aliases
//! test=alias-of-private   an access to the alias of a private page aborts, and the VM lives on
//! test=convert-bench      time for a conversion of 4 KiB, 2 MiB and 1 GiB, there and back
//! test=fragment           shares every second page until the host refuses, and takes all back
//! test=edu-highest-page   QEMU's edu device reaches the highest page of DRAM
//! test=edu-private-again  edu does not reach a page that has become private
//! ```
//!
//! # Build
//! From the repository's root, with a compiler that has the core library of the target, and a GNU
//! binutils for arm64:
//!
//! ```text
//! CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
//! CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
//!   cargo build --release --manifest-path tests/guest/Cargo.toml --target aarch64-unknown-linux-gnu
//! aarch64-linux-gnu-objcopy -O binary TARGET_DIR/aarch64-unknown-linux-gnu/release/guest guest.bin
//! ```
#![no_std]
#![no_main]

mod console;
mod edu;
mod exception;
mod machine;
mod mmio;
mod mmu;
mod pci;
mod rsi;
mod smccc;
mod tests;
mod time;

use core::panic::PanicInfo;

core::arch::global_asm!(include_str!("start.s"));

/// Called by `start.s` with the addresses of the device tree and of the image.
#[unsafe(no_mangle)]
extern "C" fn guest_main(tree: *const u8, image: u64) -> ! {
    // SAFETY: the boot protocol puts the address of a device tree in x0, and nothing writes to it.
    let tree = unsafe { hermit_dtb::Dtb::from_raw(tree) };
    let Some(tree) = tree else {
        smccc::power_off(smccc::Conduit::Hvc);
    };
    let machine = machine::Machine::new(&tree, image);
    mmu::map_all(&machine);
    console::init(machine.serial_address());
    let outcome = tests::run(&machine);
    match outcome {
        Ok(()) => report!("result=pass"),
        Err(reason) => {
            report!("reason={reason}");
            report!("result=fail");
        }
    }
    smccc::power_off(machine.conduit)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    report!("reason={info}");
    report!("result=fail");
    // One of the two is the conduit; the other is not answered.
    smccc::power_off(smccc::Conduit::Smc)
}
