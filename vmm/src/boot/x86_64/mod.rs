//! Booting Linux on x86-64: a bzImage by the 64-bit protocol (`Documentation/arch/x86/boot.rst`), or a
//! vmlinux by PVH (`Documentation/arch/x86/boot.rst` of Linux, `docs/misc/pvh.pandoc` of Xen). And a guest that is
//! an IGVM file, which says by itself what goes where.
//!
//! ```text
//! 0                  0x9fc00    0xe0000       1 MiB      preferred address
//! │ what boot needs  │ reserved │ ACPI tables │  ...     │ kernel ... │ initrd ... │
//! ```

pub mod acpi;
mod bzimage;
pub mod hob;
#[cfg(target_arch = "x86_64")]
pub mod igvm;
mod image;
pub mod lines;
#[cfg(target_arch = "x86_64")]
mod load;
pub mod low_memory;
#[cfg(target_arch = "x86_64")]
mod memory_map;
pub mod no_pci;
pub mod placement;
pub mod ports;
#[cfg(target_arch = "x86_64")]
pub mod program;
#[cfg(target_arch = "x86_64")]
mod reset;
#[cfg(target_arch = "x86_64")]
pub mod td;
mod vmlinux;

pub use image::Image;
#[cfg(target_arch = "x86_64")]
pub use load::{Encrypted, LoadError, Loaded, SEED_BYTES, Start, Told, load};
pub use placement::{LinuxPlacement, Placement};
