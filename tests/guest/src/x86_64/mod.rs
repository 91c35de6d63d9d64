//! x86_64: an ELF file that is entered by PVH, ACPI tables, APICs.

mod acpi;
mod exception;
pub mod hypercall;
pub mod mmio;
mod port;
mod power;
pub mod processor;
pub mod rsi;
pub mod serial;
mod start_info;
pub mod time;

pub use exception::load_in_exception;
pub use power::{Power as Platform, give_up, power_off};

core::arch::global_asm!(include_str!("start.s"));

/// Called by `start.s` with the address of PVH's start info.
#[unsafe(no_mangle)]
extern "C" fn guest_main(start_info: u64) -> ! {
    exception::use_table();
    let Some(machine) = start_info::machine(start_info) else {
        give_up();
    };
    power::init(machine.platform);
    crate::run(&machine)
}

/// Writes a register of this processor's.
fn write_msr(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: callers name registers of KVM, which change no memory but their own.
    unsafe {
        core::arch::asm!(
            "wrmsr",
            in("ecx") register, in("eax") low, in("edx") high,
            options(nostack)
        );
    }
}
