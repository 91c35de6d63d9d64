//! An assigned device of a Realm: the calls by which a guest locks, accepts and stops it.

use crate::mmio;
use crate::rsi::function::{HOST_CALL, VDEV_DMA_DISABLE, VDEV_DMA_ENABLE, VDEV_GET_INFO};
use crate::rsi::{Granule, SUCCESS, rsi};

/// States of its interface.
pub mod state {
    pub const UNLOCKED: u64 = 0;
    pub const LOCKED: u64 = 1;
    pub const RUN: u64 = 2;
    pub const ERROR: u64 = 3;
}

/// Calls to the host (RHI).
const DA_FEATURES: u64 = 0xc500_004b;
const OBJECT_READ: u64 = 0xc500_004d;
const SET_TDI_STATE: u64 = 0xc500_0054;

/// The object that is the interface report.
const REPORT: u64 = 3;

impl Info {
    /// The arguments that ask for device memory at private addresses.
    pub fn mapping(self, device: Vdev, base: u64, top: u64) -> [u64; 8] {
        let nonces = [self.lock_nonce, self.measurement_nonce, self.report_nonce];
        let [lock, measurement, report] = nonces;
        [device.0, base, top, base, 0, lock, measurement, report]
    }
}

/// A device, by its requester id.
#[derive(Clone, Copy)]
pub struct Vdev(pub u64);

/// What the RMM says of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// The state of its interface.
    pub state: u64,
    lock_nonce: u64,
    measurement_nonce: u64,
    report_nonce: u64,
}

static BUFFER: Granule = Granule::new();

/// A host call with these registers: what comes back in the first two.
fn host_call(registers: &[u64]) -> [u64; 2] {
    let structure = BUFFER.address();
    mmio::write64(structure, 0);
    for (at, register) in (1..).zip(registers) {
        mmio::write64(structure + 8 * at, *register);
    }
    match rsi(HOST_CALL, [structure])[0] {
        SUCCESS => [mmio::read64(structure + 8), mmio::read64(structure + 16)],
        _ => [u64::MAX; 2],
    }
}

/// What the host offers for devices, a bit for each call.
pub fn host_features() -> u64 {
    host_call(&[DA_FEATURES])[0]
}

impl Vdev {
    /// Brings its interface into a state; returns the host's status.
    pub fn bring_to(self, state: u64) -> u64 {
        host_call(&[SET_TDI_STATE, self.0, state])[0]
    }

    /// Has the host copy its interface report to a shared page; returns the status and the bytes.
    pub fn read_report(self, page: u64, room: u64) -> [u64; 2] {
        host_call(&[OBJECT_READ, self.0, REPORT, page, room, 0])
    }

    /// What the RMM says of it.
    pub fn info(self) -> Option<Info> {
        let structure = BUFFER.address();
        let [status, ..] = rsi(VDEV_GET_INFO, [self.0, structure]);
        let word = |offset| mmio::read64(structure + offset);
        (status == SUCCESS).then(|| Info {
            state: word(0x38) & 0xff,
            lock_nonce: word(0x18),
            measurement_nonce: word(0x20),
            report_nonce: word(0x28),
        })
    }

    /// Lets the device that was looked at reach private memory while it runs; returns the status.
    pub fn enable_dma(self, seen: Info) -> u64 {
        let nonces = [seen.lock_nonce, seen.measurement_nonce, seen.report_nonce];
        let [lock, measurement, report] = nonces;
        rsi(VDEV_DMA_ENABLE, [self.0, 0, 0, lock, measurement, report])[0]
    }

    /// Takes that back; returns the status.
    pub fn disable_dma(self) -> u64 {
        rsi(VDEV_DMA_DISABLE, [self.0])[0]
    }

    /// Locks the device, looks at it and starts it, with private memory in its reach.
    pub fn accept(self) -> Result<(), &'static str> {
        if self.bring_to(state::LOCKED) != 0 {
            return Err("the device cannot be locked");
        }
        let seen = self.info().ok_or("no information on the locked device")?;
        if self.enable_dma(seen) != SUCCESS || self.bring_to(state::RUN) != 0 {
            return Err("the device cannot be started");
        }
        Ok(())
    }
}
