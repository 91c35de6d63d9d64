//! The tests that a Realm alone can do.

use super::{Failure, Outcome, conversion, dma, service, storm, vdev};
use crate::machine::Machine;

/// Runs the test of this name.
pub fn run(name: &str, machine: &Machine<'_>) -> Outcome {
    let realm = machine.realm;
    let realm = || realm.ok_or(Failure::Wrong("this is not a Realm"));
    match name {
        "rsi-errors" => service::errors(machine, realm()?),
        "measurement" => service::measurement(realm()?),
        "attestation" => service::attestation(realm()?),
        "convert" => conversion::contents(machine, realm()?),
        "alias-of-private" => conversion::alias_of_private(machine, realm()?),
        "fragment" => conversion::fragment(machine, realm()?),
        "storm" => storm::run(machine, realm()?),
        "vdev" => vdev::accept_one_of_two(machine, realm()?),
        "edu-private-again" => dma::private_again(machine, realm()?),
        _ => Err("there is no such test".into()),
    }
}
