//! The testbed and the VM tests that run in it.
//!
//! ```text
//! this machine                L1, the host                      L2, the guest
//! harness (this crate) ──▶ QEMU: KVM, IOMMU, devices ──▶ ccvm ──▶ Debian kernel or payload
//! ```
//!
//! The same tests run on a machine with KVM and VFIO of its own; the machine is then the host.
#![forbid(unsafe_code)]

pub mod arch;
pub mod background;
pub mod bed;
pub mod bench;
pub mod case;
mod cases;
mod daemon;
pub mod demo;
pub mod devices;
mod digest;
pub mod guest;
mod host_memory;
pub mod image;
pub mod machine;
pub mod on_host;
pub mod operator;
pub mod outcome;
pub mod platform;
pub mod prepare;
pub mod progress;
mod refusals;
pub mod report;
pub mod runner;
pub mod vm;
