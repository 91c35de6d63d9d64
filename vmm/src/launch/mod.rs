//! From a plan to a running VM. Each stage is a type that consumes the one before, so that no step can
//! be left out or come too early.
//!
//! ```text
//! VmPlan ─► Planned ─► Created ───► Loaded ───► Finalized ──► Running ─► Ending
//!           files      VM, memory   kernel,     what KVM      vCPU
//!           checked    GIC, vCPUs,  device      must know     threads,
//!                      devices      tree        last          console
//! ```

mod created;
mod error;
mod finalized;
mod line;
mod loaded;
mod own_memory;
mod planned;
mod running;

pub use created::Created;
pub use error::LaunchError;
pub use finalized::Finalized;
pub use loaded::Loaded;
pub use planned::Planned;
pub use running::Running;
