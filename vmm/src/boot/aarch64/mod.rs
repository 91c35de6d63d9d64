//! Booting Linux on arm64: `Documentation/arch/arm64/booting.rst`.

mod compressed;
pub mod fdt;
mod image;
#[cfg(target_arch = "aarch64")]
mod load;
pub mod placement;

pub use image::Image;
#[cfg(target_arch = "aarch64")]
pub use load::{LoadError, load};
pub use placement::Placement;
