//! The launch measurement that a verifier should expect.
//!
//! ```text
//! plan, boot files ─► boot: segments, entry ─┬─► launch: guest memory, vCPU
//!                                            └─► measure: the same, as the platform digests it
//! ```
//!
//! What is measured is what is loaded: both go by one list of segments. Each platform's format is a
//! module that takes typed events and knows no VM: [`rim`] for Realms, [`snp`] and [`tdx`].

mod digest;
mod expected;
mod igvm;
mod realm;
pub mod report;
pub mod rim;
pub mod snp;
#[cfg(target_arch = "x86_64")]
mod snp_kernel;
mod td;
pub mod tdx;

pub use digest::{Digest, HashAlgorithm};
pub use expected::{Expected, MeasuredOn, MeasuredSegment, Register};
pub use realm::{InitialContent, RealmHost, RmmVersion};
pub use rim::Lpa2;
