//! Exceptions: none is expected, so any ends the test.

use core::arch::asm;
use core::cell::UnsafeCell;

use super::give_up;
use crate::report;

const VECTORS: usize = 32;
/// Bytes of each vector's code in `start.s`.
const BYTES: u64 = 16;
/// The vector of, among others, a register that is none.
const GENERAL_PROTECTION: usize = 13;
/// No register of any processor.
const NO_REGISTER: u32 = 0xdead_0000;
/// The code segment of `start.s`.
const CODE: u64 = 0x08;
/// Present, an interrupt gate.
const GATE: u64 = 0x8e << 40;

struct Table(UnsafeCell<[[u64; 2]; VECTORS]>);

// SAFETY: the first processor fills it before there is another, and from then on it is only read.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; VECTORS]));

unsafe extern "C" {
    fn vectors();
    fn load_in_handler();
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Makes the table and has this processor use it.
pub fn use_table() {
    make_table();
    load_table();
}

fn make_table() {
    // SAFETY: called once, while nothing else runs.
    let table = unsafe { &mut *TABLE.0.get() };
    for (number, entry) in (0u64..).zip(table.iter_mut()) {
        *entry = gate(vectors as *const () as u64 + number * BYTES);
    }
}

/// The entry of a handler at `address`.
const fn gate(address: u64) -> [u64; 2] {
    [
        address & 0xffff | CODE << 16 | GATE | (address >> 16 & 0xffff) << 48,
        address >> 32,
    ]
}

/// Takes an exception whose handler loads from the device at `address` before it does anything else.
/// While there is one processor.
pub fn load_in_exception(address: u64) -> u32 {
    // SAFETY: no other processor uses the table, and this one takes none of these exceptions before.
    let table = unsafe { &mut *TABLE.0.get() };
    table[GENERAL_PROTECTION] = gate(load_in_handler as *const () as u64);
    let value: u32;
    // SAFETY: the handler loads, and returns behind the instruction; it is given stack.
    unsafe {
        asm!("rdmsr", in("ecx") NO_REGISTER, in("rdi") address, out("eax") value, out("edx") _)
    };
    value
}

/// Has this processor use the table that [`use_table`] has made.
pub fn load_table() {
    let pointer = Pointer {
        limit: (size_of::<[[u64; 2]; VECTORS]>() - 1) as u16,
        base: TABLE.0.get() as u64,
    };
    // SAFETY: the table is complete and stays.
    unsafe { asm!("lidt [{0}]", in(reg) &pointer, options(nostack)) };
}

/// Called by `start.s`.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, error: u64, resume: u64, address: u64) -> ! {
    report!("reason=exception {vector} at {resume:#x}: error {error:#x}, address {address:#x}");
    report!("result=fail");
    give_up()
}
