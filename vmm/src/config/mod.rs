//! The configuration file: what the operator asked for.

pub mod spec;

pub use spec::VmSpec;
