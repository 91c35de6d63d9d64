//! KVM virtual machines, memory slots and vCPUs: one of the two crates that may use unsafe code.
//!
//! ```text
//! Vm ──┬─ memory slots: guest-physical range ─► host memory, kept alive while the slot lives
//!      ├─ aarch64::Gic: GICv3 distributor, redistributors, ITS
//!      ├─ IrqRouter: events of devices ─► messages and lines
//!      └─ aarch64::Vcpu ── run() ─► Exit
//! ```
//! Everything but `aarch64` builds on every architecture; only arm64 VMs can be run.

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
mod error;
mod ipa;
mod irqfd;
mod memory;
pub mod numa;
mod probe;
pub mod ram;
mod routing;
mod slots;
mod vm;

pub use error::Error;
pub use ipa::Ipa;
pub use irqfd::{IrqRouter, LineIrq, MessageIrq};
pub use memory::HostMemory;
pub use probe::{Probe, ProbeError, probe};
pub use slots::{Access, SlotId};
pub use vm::Vm;
