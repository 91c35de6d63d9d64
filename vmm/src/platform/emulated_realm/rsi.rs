//! The calling convention of the Realm Services Interface: which function, what comes back.
//!
//! Numbers are those of RMM 1.0 (Arm DEN0137, "Realm Services Interface") as `include/smc-rsi.h` of
//! TF-RMM and `arch/arm64/include/asm/rsi_smc.h` of Linux have them.

/// The function id of `RSI_VERSION`, the lowest of the interface.
pub const FIRST_FUNCTION: u32 = 0xc400_0190;

/// How many function ids, from [`FIRST_FUNCTION`] on, belong to the interface.
pub const FUNCTION_COUNT: u32 = 0x20;

/// The interface version that is offered, 1.0, as `RSI_VERSION` encodes it.
pub(super) const VERSION: u64 = 1 << 16;

/// Registers x1 to x10 of a call.
pub type Arguments = [u64; 10];

/// A function of the interface, version 1.0, or one of those for devices of the beta of RMM 2.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the specification")]
pub enum Function {
    Version,
    Features,
    MeasurementRead,
    MeasurementExtend,
    AttestationTokenInit,
    AttestationTokenContinue,
    RealmConfig,
    IpaStateSet,
    IpaStateGet,
    HostCall,
    VdevDmaEnable,
    VdevGetInfo,
    VdevValidateMapping,
    VdevDmaDisable,
}

impl Function {
    /// The function with this SMCCC id, or `None` for one that is not there.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id.checked_sub(FIRST_FUNCTION)? {
            0x00 => Self::Version,
            0x01 => Self::Features,
            0x02 => Self::MeasurementRead,
            0x03 => Self::MeasurementExtend,
            0x04 => Self::AttestationTokenInit,
            0x05 => Self::AttestationTokenContinue,
            0x06 => Self::RealmConfig,
            0x07 => Self::IpaStateSet,
            0x08 => Self::IpaStateGet,
            0x09 => Self::HostCall,
            0x0c => Self::VdevDmaEnable,
            0x0d => Self::VdevGetInfo,
            0x0f => Self::VdevValidateMapping,
            0x14 => Self::VdevDmaDisable,
            _ => return None,
        })
    }

    /// Whether only a Realm with assigned devices has it.
    #[must_use]
    pub const fn is_for_devices(self) -> bool {
        matches!(
            self,
            Self::VdevDmaEnable
                | Self::VdevGetInfo
                | Self::VdevValidateMapping
                | Self::VdevDmaDisable
        )
    }

    /// How many registers from x1 on hold its arguments.
    #[must_use]
    pub const fn argument_count(self) -> usize {
        match self {
            Self::Version
            | Self::Features
            | Self::MeasurementRead
            | Self::RealmConfig
            | Self::HostCall
            | Self::VdevDmaDisable => 1,
            Self::IpaStateGet | Self::VdevGetInfo => 2,
            Self::AttestationTokenContinue => 3,
            Self::IpaStateSet => 4,
            Self::VdevDmaEnable => 6,
            Self::AttestationTokenInit | Self::VdevValidateMapping => 8,
            Self::MeasurementExtend => 10,
        }
    }
}

/// Why a call did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// An argument is out of its domain.
    Input = 1,
    /// The Realm or the vCPU is not in the state that the call needs.
    State = 2,
    /// Something that the guest has no part in.
    Unknown = 4,
    /// A device is not in the state that the call needs.
    Device = 5,
}

/// Registers x0 and up after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    registers: [u64; 9],
    count: usize,
}

impl Reply {
    const SUCCESS: u64 = 0;
    const INCOMPLETE: u64 = 3;
    /// Every call sets x0 to x3 at least: what it has no result for reads zero.
    const LEAST: usize = 4;

    /// What SMCCC answers for a function that is not there: `NOT_SUPPORTED`, -1.
    pub const NOT_SUPPORTED: Self = Self {
        registers: [u64::MAX, 0, 0, 0, 0, 0, 0, 0, 0],
        count: Self::LEAST,
    };

    /// The registers to set, from x0 on.
    #[must_use]
    pub fn registers(&self) -> &[u64] {
        self.registers.get(..self.count).unwrap_or_default()
    }

    /// `RSI_SUCCESS` with results in x1 and up.
    pub(super) fn success<const N: usize>(results: [u64; N]) -> Self {
        Self::new(Self::SUCCESS, results)
    }

    /// `RSI_INCOMPLETE` with results in x1 and up.
    pub(super) fn incomplete<const N: usize>(results: [u64; N]) -> Self {
        Self::new(Self::INCOMPLETE, results)
    }

    /// An error with results in x1 and up.
    pub(super) fn failure<const N: usize>(failure: Failure, results: [u64; N]) -> Self {
        Self::new(failure as u64, results)
    }

    fn new<const N: usize>(status: u64, results: [u64; N]) -> Self {
        const { assert!(N <= 8) };
        let mut registers = [0; 9];
        registers[0] = status;
        registers[1..=N].copy_from_slice(&results);
        Self {
            registers,
            count: Self::LEAST.max(N + 1),
        }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::failure(failure, [])
    }
}

/// The bytes that registers carry: each holds eight, the first in its lowest bits.
pub(super) fn bytes_of<const N: usize>(registers: &[u64]) -> [u8; N] {
    let mut bytes = [0; N];
    for (chunk, register) in bytes.chunks_mut(8).zip(registers) {
        chunk.copy_from_slice(&register.to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// The registers that carry `bytes`, zero beyond their end.
pub(super) fn registers_of<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut registers = [0; N];
    for (register, chunk) in registers.iter_mut().zip(bytes.chunks(8)) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        *register = u64::from_le_bytes(word);
    }
    registers
}
