//! KVM virtual machines, memory slots and vCPUs: one of the two crates that may use unsafe code.

pub mod ram;
