//! `RSI_HOST_CALL`: the guest asks its host, past the RMM, for something.

use iommu::{Gpa, PAGE_SIZE};

use super::rsi::{Arguments, Failure, Reply};
use super::{NotPrivate, Realm, RealmMemory, rhi};

/// Bytes of `RsiHostCall`, which is aligned to its size: a 16-bit immediate, then 31 registers.
const STRUCTURE: u64 = 0x100;

/// Where the first of the 31 registers is.
const FIRST_REGISTER: u64 = 8;

/// Bytes of a register.
const REGISTER: usize = 8;

impl<M: RealmMemory> Realm<M> {
    /// x1: the structure, within a granule of private memory.
    ///
    /// This host serves immediate 0 with the calls in `rhi.rs`. For any other call the first register
    /// of the structure comes back as SMCCC's `NOT_SUPPORTED`, the others as they were.
    pub(super) fn host_call(&self, arguments: &Arguments) -> Reply {
        let structure = Gpa::new(arguments[0]);
        const { assert!(PAGE_SIZE.is_multiple_of(STRUCTURE)) };
        if !structure.raw().is_multiple_of(STRUCTURE) || !self.is_protected(structure) {
            return Failure::Input.into();
        }
        match self.serve(structure) {
            Ok(()) => Reply::success([]),
            Err(NotPrivate) => Failure::Input.into(),
        }
    }

    fn serve(&self, structure: Gpa) -> Result<(), NotPrivate> {
        let first = Gpa::new(structure.raw() | FIRST_REGISTER);
        let mut immediate = [0; 2];
        self.memory.read_private(structure, &mut immediate)?;
        let mut bytes = [0; REGISTER * rhi::REGISTERS];
        self.memory.read_private(first, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<REGISTER>();
        let mut registers = [0; rhi::REGISTERS];
        for (register, word) in registers.iter_mut().zip(words) {
            *register = u64::from_le_bytes(*word);
        }
        let answer = match u16::from_le_bytes(immediate) {
            0 => self.realm_host_interface(registers),
            _ => None,
        };
        match answer {
            Some([status, result]) => {
                let both = [status.to_le_bytes(), result.to_le_bytes()].concat();
                self.memory.write_private(first, &both)
            }
            None => {
                let immediate = u16::from_le_bytes(immediate);
                tracing::debug!("host call {immediate:#x} is not supported");
                self.memory.write_private(first, &u64::MAX.to_le_bytes())
            }
        }
    }
}
