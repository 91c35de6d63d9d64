//! KVM virtual machines, memory slots and vCPUs: one of the two crates that may use unsafe code.

mod probe;
pub mod ram;

pub use probe::{Probe, ProbeError, probe};
