//! From a plan to a running VM. Each stage is a type that consumes the one before, so that no step can
//! be left out or come too early.
//!
//! ```text
//! VmPlan ─► Planned ─► Created ───► Loaded ───► Finalized ──► Running ─► Ending
//!           files      VM, memory   kernel,     what KVM      vCPU
//!           checked    GIC, vCPUs,  device      must know     threads,
//!                      devices      tree        last          console
//! ```
//! What differs between architectures is in a folder for each.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod created;
mod error;
mod finalized;
mod line;
mod loaded;
mod memory;
mod planned;
mod running;
mod surroundings;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

pub use created::Created;
pub use error::LaunchError;
pub use finalized::Finalized;
pub use loaded::Loaded;
pub use planned::Planned;
pub(crate) use planned::SYSFS;
pub use running::Running;
pub use surroundings::Surroundings;
