//! A bare-metal guest that tests what a VM really gets.
//!
//! It is booted as a kernel (`[boot] kernel`), does the test that its command line names, reports
//! `key=value` lines on the serial port, the last of them `result=pass` or `result=fail`, and powers
//! off. It knows where to find everything from its device tree or its ACPI tables only.
//!
//! ```text
//! test=facts              what the machine is (the default)
//! test=rsi-errors         the RMM's error codes for bad arguments
//! test=attestation        an attestation token, read in pieces
//! test=convert            sharing and unsharing: contents, states, aliases
//! test=alias-of-private   an access to the alias of a private page aborts, and the VM lives on
//! test=convert-bench      time for a conversion of 4 KiB, 2 MiB and 1 GiB, there and back
//! test=conformance        what every platform must do: one test of many, by `row=`
//! test=fragment           shares every second page until the host refuses, and takes all back
//! test=storm              two processors convert for `seconds=` while a disk works, by `seed=`
//! test=hostile            asks the IOMMU for what must be refused, with edu behind it
//! test=exhaust            maps by way of the IOMMU until there is no room
//! test=translation        what edu reaches by way of the IOMMU, while pages change their state
//! test=edu-highest-page   QEMU's edu device reaches the highest page of DRAM
//! test=edu-beyond-memory  edu writes to where there is no memory
//! test=vdev               accepts one of two edu devices by the VDEV calls, and stops it
//! test=edu-private-again  edu does not reach a page that has become private
//! ```
//!
//! On x86_64, where there are no Realms, it does those tests that need none: facts, conformance,
//! convert-bench, hostile, exhaust, translation and those of edu alone. There it is an ELF file that is
//! entered by PVH. It also does these, the last three in a software-protected VM:
//!
//! ```text
//! test=exception-then-device  a handler's first access is to a device: KVM has delivered its exception
//! test=gpa-range          conversions by calls to KVM: contents, and calls that make no sense
//! test=gpa-range-edu      edu reaches a page as long as it is shared
//! test=gpa-range-storm    pages change around those that edu copies, for `seconds=` and by `seed=`
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
//!
//! CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
//!   cargo build --release --manifest-path tests/guest/Cargo.toml --target x86_64-unknown-linux-gnu
//! ```
#![no_std]
#![no_main]
#![cfg_attr(
    not(target_arch = "aarch64"),
    allow(dead_code, reason = "the tests of Realms use the rest")
)]

#[cfg(target_arch = "aarch64")]
#[path = "aarch64/mod.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64/mod.rs"]
mod arch;
mod console;
mod edu;
mod isolation;
mod lock;
mod machine;
mod memory;
#[cfg(target_arch = "aarch64")]
mod nvme;
mod pci;
mod random;
mod tests;
mod time;
#[cfg(target_arch = "aarch64")]
mod vdev;
mod viommu;
mod virtio;

use core::panic::PanicInfo;

use arch::{mmio, rsi};

/// Does what the command line says and powers off.
fn run(machine: &machine::Machine<'_>) -> ! {
    let outcome = tests::run(machine);
    match outcome {
        Ok(()) => report!("result=pass"),
        Err(reason) => {
            report!("reason={reason}");
            report!("result=fail");
        }
    }
    arch::power_off(machine.platform)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    report!("reason={info}");
    report!("result=fail");
    arch::give_up()
}
