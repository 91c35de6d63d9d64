//! What a host offers: recorded as JSON, or read from this machine.

pub mod facts;

pub use facts::HostFacts;
