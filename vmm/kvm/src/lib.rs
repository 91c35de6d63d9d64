//! KVM virtual machines, memory slots and vCPUs: one of the two crates that may use unsafe code.
//!
//! ```text
//! Vm ──┬─ memory slots: guest-physical range ─► host memory, kept alive while the slot lives
//!      ├─ aarch64::Gic: GICv3 distributor, redistributors, ITS; on x86-64 local APICs and IOAPIC
//!      ├─ IrqRouter: events of devices ─► messages and lines
//!      ├─ IoEvent: a store of the guest ─► an event
//!      └─ Vcpu ── run() ─► Exit
//! ```
//! What only one architecture has is in a module of its name.

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
pub mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

pub mod cca;
mod error;
mod ioeventfd;
mod ipa;
mod irqfd;
mod memory;
pub mod numa;
mod private;
mod probe;
#[cfg(target_arch = "x86_64")]
mod progress;
mod protected;
pub mod ram;
mod routing;
mod slots;
#[cfg(target_arch = "x86_64")]
pub mod snp;
pub mod sw_protected;
pub mod tap;
#[cfg(target_arch = "x86_64")]
pub mod tdx;
mod vcpu;
mod vm;

pub use arch::IrqInput;
pub use error::Error;
pub use ioeventfd::IoEvent;
pub use ipa::Ipa;
pub use irqfd::{IrqRouter, LineIrq, MessageIrq};
pub use memory::HostMemory;
pub use probe::{Probe, ProbeError, VmTypes, probe};
pub use protected::ProtectedLack;
pub use slots::{Access, SlotId};
pub use vcpu::{Exit, Fault, GaveUp, Instruction, Kick, SystemEvent, Vcpu};
pub use vm::{Vm, VmKind};
