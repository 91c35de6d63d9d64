//! `RSI_HOST_CALL`: the guest asks its host, past the RMM, for something.

use iommu::{Gpa, PAGE_SIZE};

use super::rsi::{Arguments, Failure, Reply};
use super::{Realm, RealmMemory};

/// Bytes of `RsiHostCall`, which is aligned to its size: a 16-bit immediate, then 31 registers.
const STRUCTURE: u64 = 0x100;

/// Where the first of the 31 registers is.
const FIRST_REGISTER: u64 = 8;

impl<M: RealmMemory> Realm<M> {
    /// x1: the structure, within a granule of private memory.
    ///
    /// This host serves no immediate: the first register of the structure comes back as SMCCC's
    /// `NOT_SUPPORTED`, the others as they were.
    pub(super) fn host_call(&self, arguments: &Arguments) -> Reply {
        let structure = Gpa::new(arguments[0]);
        const { assert!(PAGE_SIZE.is_multiple_of(STRUCTURE)) };
        if !structure.raw().is_multiple_of(STRUCTURE) || !self.is_protected(structure) {
            return Failure::Input.into();
        }
        let mut immediate = [0; 2];
        let done = self
            .memory
            .read_private(structure, &mut immediate)
            .and_then(|()| {
                let register = Gpa::new(structure.raw() | FIRST_REGISTER);
                self.memory.write_private(register, &u64::MAX.to_le_bytes())
            });
        if done.is_err() {
            return Failure::Input.into();
        }
        let immediate = u16::from_le_bytes(immediate);
        tracing::debug!("host call {immediate:#x} is not supported");
        Reply::success([])
    }
}
