//! The tests, by name.

mod bench;
mod conformance;
#[cfg(target_arch = "aarch64")]
mod conversion;
mod dma;
#[cfg(target_arch = "x86_64")]
mod exception;
mod hostile;
#[cfg(target_arch = "aarch64")]
mod realm;
#[cfg(target_arch = "aarch64")]
mod service;
#[cfg(target_arch = "aarch64")]
mod storm;
#[cfg(target_arch = "x86_64")]
mod sw_protected;
mod translation;
#[cfg(target_arch = "aarch64")]
mod vdev;

use crate::machine::Machine;
use crate::memory::ShareError;
use crate::report;
use crate::rsi::Refused;

/// Why a test failed.
pub type Outcome = Result<(), Failure>;

/// Why a test failed.
pub enum Failure {
    /// Something is not as it must be.
    Wrong(&'static str),
    /// The host refused a conversion.
    Refused(Refused),
}

impl From<&'static str> for Failure {
    fn from(reason: &'static str) -> Self {
        Self::Wrong(reason)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::NoMemory(reason) => Self::Wrong(reason),
            ShareError::Refused(refused) => Self::Refused(refused),
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Wrong(reason) => f.write_str(reason),
            Self::Refused(Refused { status, reached }) => {
                write!(f, "a state was refused at {reached:#x}, status {status}")
            }
        }
    }
}

/// Runs the test that the command line names.
pub fn run(machine: &Machine<'_>) -> Outcome {
    facts(machine);
    let name = machine.argument("test").unwrap_or("facts");
    report!("test={name}");
    match name {
        "facts" => Ok(()),
        "conformance" => conformance::run(machine),
        "convert-bench" => bench::run(machine),
        "translation" => translation::run(machine),
        "exhaust" => hostile::exhaust(machine),
        "hostile" => hostile::run(machine),
        "edu-highest-page" => dma::highest_page(machine),
        "edu-beyond-memory" => dma::beyond_memory(machine),
        #[cfg(target_arch = "aarch64")]
        name => realm::run(name, machine),
        #[cfg(target_arch = "x86_64")]
        "exception-then-device" => exception::then_device(machine),
        #[cfg(target_arch = "x86_64")]
        name => sw_protected::run(name, machine),
    }
}

fn facts(machine: &Machine<'_>) {
    match machine.realm {
        Some(realm) => realm.report(),
        None => report!("realm=no"),
    }
    for range in machine.dram() {
        report!("dram={:#x}..{:#x}", range.start, range.end);
    }
    if let Some(window) = machine.window {
        report!("pci_window={:#x}..{:#x}", window.start, window.end);
    }
}
