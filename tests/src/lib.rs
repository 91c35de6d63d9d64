//! The testbed and the VM tests that run in it.
//!
//! ```text
//! this machine                L1, the host                      L2, the guest
//! harness (this crate) ──▶ QEMU: KVM, SMMUv3, devices ──▶ ccvm ──▶ Debian kernel or payload
//! ```
//!
//! The same tests run on an arm64 machine with KVM and VFIO of its own; the machine is then the host.
#![forbid(unsafe_code)]

pub mod bed;
pub mod bench;
pub mod case;
mod cases;
pub mod demo;
pub mod devices;
mod digest;
pub mod guest;
pub mod image;
pub mod machine;
pub mod on_host;
pub mod prepare;
pub mod progress;
pub mod report;
pub mod runner;
