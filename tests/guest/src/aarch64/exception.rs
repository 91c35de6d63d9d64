//! Exceptions: expected ones are noted, any other ends the test.

use super::smccc;
use crate::report;

/// What `start.s` has saved.
#[repr(C)]
pub struct Frame {
    x: [u64; 31],
    resume: u64,
    syndrome: u64,
    address: u64,
}

/// Vector 4: synchronous, from the level and the stack that this guest uses.
const SYNCHRONOUS: u64 = 4;
/// Exception class: data abort from the same level.
const DATA_ABORT: u64 = 0x25;
/// Fault status: synchronous external abort, not on a table walk.
const EXTERNAL: u64 = 0x10;

unsafe extern "C" {
    fn probe_load(address: u64) -> Loaded;
    fn probe_store(address: u64, value: u32) -> u64;
}

#[repr(C)]
struct Loaded {
    value: u64,
    aborted: u64,
}

/// The access met with a synchronous external abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aborted;

/// Loads 32 bits from where there may be nothing.
pub fn try_load(address: u64) -> Result<u32, Aborted> {
    // SAFETY: aborts are handled; what is loaded is only a number.
    let loaded = unsafe { probe_load(address) };
    match loaded.aborted {
        0 => Ok(loaded.value as u32),
        _ => Err(Aborted),
    }
}

/// Stores 32 bits to where there may be nothing, and certainly nothing of the compiler's.
pub fn try_store(address: u64, value: u32) -> Result<(), Aborted> {
    // SAFETY: aborts are handled; callers store to pages that they own or to none.
    match unsafe { probe_store(address, value) } {
        0 => Ok(()),
        _ => Err(Aborted),
    }
}

/// Called by `start.s`; where it returns, the guest goes on at `frame.resume`.
#[unsafe(no_mangle)]
extern "C" fn exception(vector: u64, frame: &mut Frame) {
    let class = frame.syndrome >> 26 & 0x3f;
    let status = frame.syndrome & 0x3f;
    let probes = [
        probe_load as *const () as u64,
        probe_store as *const () as u64,
    ];
    // The access is the second instruction of each.
    let probed = probes.iter().any(|probe| frame.resume == probe + 4);
    if vector == SYNCHRONOUS && class == DATA_ABORT && status == EXTERNAL && probed {
        frame.x[2] = 1;
        frame.resume += 4;
        return;
    }
    let Frame {
        resume,
        syndrome,
        address,
        ..
    } = frame;
    report!(
        "reason=exception {vector} at {resume:#x}: syndrome {syndrome:#x}, address {address:#x}"
    );
    report!("result=fail");
    smccc::power_off(smccc::Conduit::Smc)
}
