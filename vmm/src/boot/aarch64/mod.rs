//! Booting Linux on arm64: `Documentation/arch/arm64/booting.rst`.

mod compressed;
pub mod fdt;
mod image;
mod load;
pub mod placement;
pub mod program;

pub use image::Image;
pub use load::{LoadError, load};
pub use placement::Placement;
pub use program::{Entry, Program, Seed, TreeError};
