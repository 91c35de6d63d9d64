//! The second processor: it is halted but while [`beside`] has work for it.
//!
//! ```text
//! INIT, SIPI ─► trampoline (real mode, below 1 MiB) ─► long mode ─► guest_second ─► hlt
//! ```

use core::sync::atomic::{AtomicBool, Ordering};
use core::{hint, mem};

use super::{exception, mmio};
use crate::lock::Spin;
use crate::machine::Machine;
use crate::time;

/// What the second processor does.
type Work = &'static (dyn Fn() + Sync);

static JOB: Spin<Option<Work>> = Spin::new(None);
static DONE: AtomicBool = AtomicBool::new(false);

/// Where the trampoline is put: memory below 1 MiB that neither the loader nor this program uses.
const TRAMPOLINE: u64 = 0x1_0000;
/// Where it looks for the descriptor table's limit and address.
const POINTER: u64 = TRAMPOLINE + 0x100;

unsafe extern "C" {
    static second_trampoline: u8;
    static second_trampoline_end: u8;
    static gdt_pointer: u8;
}

/// Does `first` here while the second processor does `second`; returns when both have ended.
pub fn beside<R>(
    machine: &Machine<'_>,
    second: &(dyn Fn() + Sync),
    first: impl FnOnce() -> R,
) -> Result<R, &'static str> {
    let target = machine.second_processor.ok_or("there is one processor")?;
    // SAFETY: this function does not return before the other processor has said that it will not
    // touch the work any more.
    let work = unsafe { mem::transmute::<&(dyn Fn() + Sync), Work>(second) };
    *JOB.lock() = Some(work);
    DONE.store(false, Ordering::Relaxed);
    place_trampoline();
    switch_on(target);
    let result = first();
    while !DONE.load(Ordering::Acquire) {
        hint::spin_loop();
    }
    Ok(result)
}

fn place_trampoline() {
    let [start, end, pointer] = [
        &raw const second_trampoline,
        &raw const second_trampoline_end,
        &raw const gdt_pointer,
    ]
    .map(|symbol| symbol as u64);
    for offset in 0..end - start {
        mmio::write8(TRAMPOLINE + offset, mmio::read8(start + offset));
    }
    mmio::write16(POINTER, mmio::read16(pointer));
    mmio::write32(POINTER + 2, mmio::read32(pointer + 2));
}

/// Sends INIT, and twice the address to start at (Intel SDM, volume 3, section 11.4.4).
fn switch_on(target: u64) {
    const APIC: u64 = 0xfee0_0000;
    const SPURIOUS: u64 = APIC + 0xf0;
    const COMMAND: u64 = APIC + 0x300;
    const TARGET: u64 = APIC + 0x310;
    /// Of the spurious interrupt's register: the APIC is on.
    const ON: u32 = 1 << 8;
    const INIT: u32 = 0x4500;
    const STARTUP: u32 = 0x4600 | (TRAMPOLINE >> 12) as u32;
    mmio::write32(SPURIOUS, mmio::read32(SPURIOUS) | ON);
    for (command, microseconds) in [(INIT, 10_000), (STARTUP, 1000), (STARTUP, 0)] {
        mmio::write32(TARGET, (target as u32) << 24);
        mmio::write32(COMMAND, command);
        let end = time::ticks() + time::frequency() / 1_000_000 * microseconds;
        while time::ticks() < end {
            hint::spin_loop();
        }
    }
}

/// Called by `start.s` on the second processor.
#[unsafe(no_mangle)]
extern "C" fn guest_second() {
    exception::load_table();
    if let Some(work) = JOB.lock().take() {
        work();
    }
    DONE.store(true, Ordering::Release);
}
