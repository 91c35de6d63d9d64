//! What a TD of this host can be given: `KVM_TDX_CAPABILITIES`.

use kvm_bindings::kvm_cpuid_entry2;

use super::command::{Command, address, give};
use super::cpuid_list::{CpuidList, MOST_LEAVES};
use crate::{Error, Vm};

/// Words of `struct kvm_tdx_capabilities` before its list: attributes, XFAM, four of calls, 250 reserved.
const WORDS: usize = 2 + 4 + 250;
const ATTRIBUTES: usize = 0;
const XFAM: usize = 1;

/// What can be configured.
#[derive(Debug, Clone)]
pub(super) struct Capabilities {
    /// Attributes of the TD that may be set.
    pub(super) attributes: u64,
    /// Extended features of processors, by their bits in XCR0 and XSS, that it may have.
    pub(super) xfam: u64,
    /// Leaves of CPUID of which the bits that are set can be configured.
    pub(super) cpuid: Vec<kvm_cpuid_entry2>,
}

impl Capabilities {
    /// Asks KVM.
    pub(super) fn of(vm: &Vm) -> Result<Self, Error> {
        let mut list = CpuidList::with_room(WORDS, MOST_LEAVES);
        let data = address(list.words_mut());
        give(vm.fd(), Command::Capabilities, 0, data)?;
        Ok(Self {
            attributes: list.word(ATTRIBUTES),
            xfam: list.word(XFAM),
            cpuid: list.leaves(),
        })
    }
}
