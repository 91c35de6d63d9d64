//! The Realm Services Interface, from the guest's side (Arm DEN0137, version 1.0).

use core::cell::UnsafeCell;

use super::smccc::{Conduit, call};
use crate::report;

/// Bytes of the smallest unit of a state.
pub const GRANULE: u64 = 4096;

/// States of a page.
pub const EMPTY: u64 = 0;
/// Private memory.
pub const RAM: u64 = 1;

/// That pages may change that their host has taken away: KVM takes a page before the RMM notes its new
/// state, so that without this no change of a page in use succeeds under an RMM.
const CHANGE_DESTROYED: u64 = 1;

/// Error codes.
pub const SUCCESS: u64 = 0;
/// A bad argument.
pub const INPUT: u64 = 1;
/// The wrong moment.
pub const STATE: u64 = 2;
/// There is more.
pub const INCOMPLETE: u64 = 3;
/// A device is in the wrong state.
pub const DEVICE: u64 = 5;
/// SMCCC: no such function.
pub const NOT_SUPPORTED: u64 = u64::MAX;

/// Functions, as the last two digits of their ids.
pub mod function {
    pub const VERSION: u64 = 0x90;
    pub const FEATURES: u64 = 0x91;
    pub const MEASUREMENT_READ: u64 = 0x92;
    pub const MEASUREMENT_EXTEND: u64 = 0x93;
    pub const TOKEN_INIT: u64 = 0x94;
    pub const TOKEN_CONTINUE: u64 = 0x95;
    pub const REALM_CONFIG: u64 = 0x96;
    pub const IPA_STATE_SET: u64 = 0x97;
    pub const IPA_STATE_GET: u64 = 0x98;
    pub const HOST_CALL: u64 = 0x99;
    pub const VDEV_DMA_ENABLE: u64 = 0x9c;
    pub const VDEV_GET_INFO: u64 = 0x9d;
    pub const VDEV_VALIDATE_MAPPING: u64 = 0x9f;
    pub const VDEV_DMA_DISABLE: u64 = 0xa4;
}

/// A page that a call reads or fills.
#[repr(C, align(4096))]
pub struct Granule(UnsafeCell<[u8; GRANULE as usize]>);

// SAFETY: each granule has one user.
unsafe impl Sync for Granule {}

impl Granule {
    /// A page of zeros.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; GRANULE as usize]))
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.0.get() as u64
    }

    /// The byte at `offset`.
    pub fn byte(&self, offset: u64) -> u8 {
        crate::mmio::read8(self.address() + offset)
    }

    /// The number at `offset`.
    pub fn word(&self, offset: u64) -> u64 {
        crate::mmio::read64(self.address() + offset)
    }
}

/// Calls the interface: returns x0 and up.
pub fn rsi<const N: usize>(function: u64, arguments: [u64; N]) -> [u64; 11] {
    let mut registers = [0; 11];
    registers[0] = 0xc400_0100 | function;
    registers[1..=N].copy_from_slice(&arguments);
    call(Conduit::Smc, registers)
}

/// The Realm that this guest is.
#[derive(Clone, Copy)]
pub struct Realm {
    /// Width of its addresses.
    pub ipa_bits: u64,
    /// Version of the interface.
    pub version: u64,
}

/// The host said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// x0.
    pub status: u64,
    /// How far the call came.
    pub reached: u64,
}

impl Realm {
    /// The Realm, if this is one. Like Linux, looks only where PSCI goes by `smc`.
    pub fn find(conduit: Conduit) -> Option<Self> {
        static CONFIG: Granule = Granule::new();
        const VERSION: u64 = 0x10000;
        if conduit != Conduit::Smc {
            return None;
        }
        let [status, version, ..] = rsi(function::VERSION, [VERSION]);
        if status != SUCCESS {
            return None;
        }
        let [status, ..] = rsi(function::REALM_CONFIG, [CONFIG.address()]);
        (status == SUCCESS).then(|| Self {
            ipa_bits: CONFIG.word(0),
            version,
        })
    }

    /// The address bit of shared memory.
    pub fn shared_bit(self) -> u64 {
        1 << (self.ipa_bits - 1)
    }

    /// Prints what it is.
    pub fn report(self) {
        let Self { ipa_bits, version } = self;
        report!("realm=yes");
        report!("rsi_version={}.{}", version >> 16, version & 0xffff);
        report!("ipa_bits={ipa_bits}");
    }

    /// Brings all of `start..end` into a state.
    pub fn set(self, start: u64, end: u64, state: u64) -> Result<(), Refused> {
        let mut reached = start;
        while reached != end {
            let arguments = [reached, end, state, CHANGE_DESTROYED];
            let [status, next, response, ..] = rsi(function::IPA_STATE_SET, arguments);
            if status != SUCCESS || response != 0 || next <= reached || next > end {
                return Err(Refused { status, reached });
            }
            reached = next;
        }
        Ok(())
    }

    /// The state at `start`, and up to where below `end` it is the same.
    pub fn get(self, start: u64, end: u64) -> Result<(u64, u64), Refused> {
        let [status, reached, state, ..] = rsi(function::IPA_STATE_GET, [start, end]);
        if status != SUCCESS || reached <= start || reached > end {
            return Err(Refused { status, reached });
        }
        Ok((state, reached))
    }
}
