//! What only arm64 VMs have: vCPUs with their registers, GICv3 with ITS, the SMCCC filter.

mod exit;
mod gic;
mod register;
mod smccc;
mod vcpu;

pub(crate) use exit::decode;
pub use exit::{ArchExit, Conduit, OwnExit};
pub(crate) use gic::routing;
pub use gic::{Gic, GicLayout, PlacedGic, Spi, Spi as IrqInput};
pub use vcpu::PowerState;
pub(crate) use vcpu::finalize_rec;
