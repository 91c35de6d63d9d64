//! Host facts read from this machine.

use super::facts::{Arch, HostFacts, SCHEMA};

/// Reads the facts of this host, as far as the caller's permissions go.
///
/// What could not be read is absent, with a sentence in [`HostFacts::unknown`].
#[must_use]
pub fn read() -> HostFacts {
    HostFacts {
        schema: SCHEMA,
        arch: THIS_ARCH,
        kvm: None,
        devices: Vec::new(),
        unknown: vec!["KVM and PCI devices were not looked at".to_owned()],
    }
}

const THIS_ARCH: Arch = if cfg!(target_arch = "aarch64") {
    Arch::Aarch64
} else {
    Arch::X86_64
};
