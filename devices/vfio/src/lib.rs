//! VFIO devices and their DMA tables: one of the two crates that may use unsafe code.
//!
//! A [`Backend`] makes [`Container`]s: address spaces of the IOMMU, by type1 or by iommufd.
//! [`Function`]s are opened into one, and a [`PinnedTable`] edits what they reach:
//!
//! ```text
//! Backend ──► Container ──┬── Function (config, BARs, interrupts, reset)    one per assigned device
//!  type1                  ├── Function
//!  iommufd                └── PinnedTable: Iova -> guest memory             one for all of them
//! ```
//!
//! The ioctls are those of `vfio-ioctls` and `iommufd-ioctls`; what these leave out (results of reset,
//! reads and writes that can fail, BAR mappings, IOVA ranges, access flags, adding MSI-X vectors one by
//! one) is here. Each call passes the gate of `hostcall`. Nothing in this crate knows KVM or what the
//! guest sees.

mod container;
mod error;
mod function;
mod interrupt;
mod ioas;
mod iova;
mod open;
mod region;
mod reset;
mod sysfs;
mod table;
mod type1;

pub use container::{Backend, BackendKind, Container, ContainerError};
pub use function::{AccessError, Function};
pub use interrupt::{InterruptError, InterruptKind, Interrupts};
pub use ioas::{Ioas, IoasError, Iommufd, IommufdOpenError};
pub use iova::{IovaError, iova_ranges};
pub use open::{AttachError, Motion, OpenError};
pub use region::{Region, RegionIndex, Span};
pub use reset::{Reset, ResetError};
pub use sysfs::{Member, Sysfs};
pub use table::PinnedTable;
