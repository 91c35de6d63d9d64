//! The second processor: it is off but while [`beside`] has work for it.

use core::sync::atomic::{AtomicBool, Ordering};
use core::{hint, mem};

use super::mmu;
use super::smccc::{Conduit, call};
use crate::lock::Spin;
use crate::machine::Machine;
use crate::time;

/// What the second processor does, and how it switches itself off then.
struct Job {
    work: &'static (dyn Fn() + Sync),
    conduit: Conduit,
}

static JOB: Spin<Option<Job>> = Spin::new(None);
static DONE: AtomicBool = AtomicBool::new(false);

const STACK: usize = 64 << 10;

#[repr(C, align(16))]
struct Stack([u8; STACK]);

static mut SECOND_STACK: Stack = Stack([0; STACK]);

unsafe extern "C" {
    fn second_start();
}

/// Functions of PSCI, and what it answers.
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const ALREADY_ON: u64 = (-4_i64).cast_unsigned();

/// Does `first` here while the second processor does `second`; returns when both have ended.
pub fn beside<R>(
    machine: &Machine<'_>,
    second: &(dyn Fn() + Sync),
    first: impl FnOnce() -> R,
) -> Result<R, &'static str> {
    let target = machine.second_processor.ok_or("there is one processor")?;
    // SAFETY: this function does not return before the other processor has said that it will not
    // touch the work any more.
    let work = unsafe { mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(second) };
    let conduit = machine.platform;
    *JOB.lock() = Some(Job { work, conduit });
    DONE.store(false, Ordering::Relaxed);
    switch_on(conduit, target)?;
    let result = first();
    while !DONE.load(Ordering::Acquire) {
        hint::spin_loop();
    }
    Ok(result)
}

fn switch_on(conduit: Conduit, target: u64) -> Result<(), &'static str> {
    let stack = &raw const SECOND_STACK as u64 + STACK as u64;
    let mut registers = [0; 11];
    registers[..4].copy_from_slice(&[CPU_ON, target, second_start as *const () as u64, stack]);
    // It may still be on its way out of the job before.
    let on = || call(conduit, registers)[0] != ALREADY_ON;
    match time::wait(10, on) {
        true => Ok(()),
        false => Err("the second processor does not switch itself off"),
    }
}

/// Called by `start.s` on the second processor.
#[unsafe(no_mangle)]
extern "C" fn guest_second() -> ! {
    mmu::use_tables();
    let job = JOB.lock().take();
    let conduit = job.as_ref().map_or(Conduit::Smc, |job| job.conduit);
    if let Some(Job { work, .. }) = job {
        work();
    }
    DONE.store(true, Ordering::Release);
    let mut registers = [0; 11];
    registers[0] = CPU_OFF;
    call(conduit, registers);
    loop {
        hint::spin_loop();
    }
}
