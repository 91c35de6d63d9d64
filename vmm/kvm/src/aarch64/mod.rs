//! What only arm64 VMs have: vCPUs with their registers, GICv3 with ITS, the SMCCC filter.

mod exit;
mod gic;
mod kick;
mod register;
mod run_page;
mod smccc;
mod vcpu;

pub use exit::{Conduit, Exit, Fault, SystemEvent};
pub use gic::{Gic, GicLayout, Spi};
pub use kick::Kick;
pub use vcpu::{PowerState, Vcpu};
