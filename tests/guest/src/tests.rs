//! The tests, by name.

mod conversion;
mod dma;
mod service;

use crate::machine::Machine;
use crate::report;
use crate::rsi::{Realm, Refused};

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
    let words = machine.cmdline.split_ascii_whitespace();
    let name = words.filter_map(|word| word.strip_prefix("test=")).last();
    let name = name.unwrap_or("facts");
    report!("test={name}");
    match name {
        "facts" => Ok(()),
        "rsi-errors" => service::errors(machine, realm(machine)?),
        "attestation" => service::attestation(realm(machine)?),
        "convert" => conversion::contents(machine, realm(machine)?),
        "alias-of-private" => conversion::alias_of_private(machine, realm(machine)?),
        "convert-bench" => conversion::bench(machine, realm(machine)?),
        "fragment" => conversion::fragment(machine, realm(machine)?),
        "edu-highest-page" => dma::highest_page(machine),
        "edu-private-again" => dma::private_again(machine, realm(machine)?),
        _ => Err("there is no such test".into()),
    }
}

fn realm(machine: &Machine<'_>) -> Result<Realm, Failure> {
    machine.realm.ok_or(Failure::Wrong("this is not a Realm"))
}

fn facts(machine: &Machine<'_>) {
    match machine.realm {
        Some(Realm { ipa_bits, version }) => {
            report!("realm=yes");
            report!("rsi_version={}.{}", version >> 16, version & 0xffff);
            report!("ipa_bits={ipa_bits}");
        }
        None => report!("realm=no"),
    }
    for range in machine.dram() {
        report!("dram={:#x}..{:#x}", range.start, range.end);
    }
    if let Some(window) = machine.window {
        report!("pci_window={:#x}..{:#x}", window.start, window.end);
    }
}
