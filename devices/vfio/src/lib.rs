//! VFIO devices and the type1 DMA table: one of the two crates that may use unsafe code.
//!
//! A [`Container`] is one IOMMU address space. [`Function`]s are opened into it, and a
//! [`Type1Table`] edits what they reach:
//!
//! ```text
//! Container ──┬── Function (config, BARs, interrupts, reset)      one per assigned device
//!             ├── Function
//!             └── Type1Table: Iova -> guest memory                 one for all of them
//! ```
//!
//! The ioctls are those of `vfio-ioctls`; what that crate leaves out (results of reset, reads and
//! writes that can fail, BAR mappings, IOVA ranges, adding MSI-X vectors one by one) is here.
//! Nothing in this crate knows KVM or what the guest sees.

mod container;
mod function;
mod interrupt;
mod iova;
mod region;
mod reset;
mod sysfs;
mod table;

pub use container::{Container, ContainerError};
pub use function::{AccessError, Function, OpenError};
pub use interrupt::{InterruptError, InterruptKind, Interrupts};
pub use iova::{IovaError, iova_ranges};
pub use region::{Region, RegionIndex, Span};
pub use reset::{Reset, ResetError};
pub use sysfs::{Member, Sysfs};
pub use table::Type1Table;
