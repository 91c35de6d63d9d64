//! PCI as the guest sees it: addresses, configuration space, base address registers, message
//! interrupts and the root complex (ECAM).
//!
//! ```text
//!                    Root ── Ecam (bus 0, MMIO)      Window (memory, I/O ports; MMIO)
//!                     │        │ configuration          │ what no BAR page answers directly
//!   00:00.0 HostBridge┤        v                        v
//!   00:01.0 function ─┤── PciFunction::config_*   PciFunction::bar_*
//!   00:02.0 RootPort ─┘                                  ^
//!              └── 01:00.0 card in its slot ─────────────┘
//! ```

mod bar;
mod bdf;
pub mod capability;
mod host_bridge;
mod msi;
mod msix;
pub mod registers;
mod root;
mod root_port;
mod slot;
mod space;

pub use bar::{AddressSpace, Bar, BarError, BarIndex, BarKind};
pub use bdf::Bdf;
pub use host_bridge::HostBridge;
pub use msi::MsiCapability;
pub use msix::{MsixCapability, MsixTable, TableLocation};
pub use root::{PciFunction, Root, SharedFunction, SlotTaken};
pub use root_port::{PortIdentity, RootPort, SlotError};
pub use slot::SlotState;
pub use space::{CONFIG_BYTES, ConfigSpace};
