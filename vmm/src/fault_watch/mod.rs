//! Accesses of assigned devices that the host's IOMMU has refused.
//!
//! ```text
//! SMMU, VT-d, AMD-Vi ─► kernel log ─► record ─► line: HostFault ─► of an assigned device?
//!                                                                    ├─► tally: status, devices
//!                                                                    └─► guest's IOMMU, interface
//! ```
//! For the address spaces that ccvm uses the kernel tells user space of no fault in any other way: the
//! log is all there is (`docs/decisions`). It is rate-limited, so that what is counted is the least
//! that has happened.

mod line;
mod record;
mod tally;
mod watch;

pub use line::{Access, HostFault};
pub use tally::{DeviceFaults, FaultTally, Hearing};
pub use watch::FaultWatch;
