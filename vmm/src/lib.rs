//! Configuration, plan, launch and run of a ccvm virtual machine.
//!
//! ```text
//! TOML ─► config::ConfigFile ─► config::VmSpec ┐
//!                                              ├─► plan::VmPlan ─► launch ─► run
//! JSON or this machine ─► host::HostFacts ─────┘
//! ```
#![forbid(unsafe_code)]

pub mod assign;
pub mod boot;
pub mod causes;
pub mod check;
pub mod config;
pub mod control;
pub mod convert;
pub mod diagnostic;
pub mod emulate;
pub mod fault_watch;
pub mod host;
mod interrupts;
pub mod launch;
pub mod measure;
mod own_memory;
pub mod pci_bus;
pub mod plan;
pub mod platform;
pub mod power_button;
mod random;
pub mod report;
pub mod resources;
pub mod run;
pub mod schema;
pub mod stats;
pub mod vcpu;
