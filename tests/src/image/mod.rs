//! Images for the testbed: archives that a kernel unpacks as its first file system.

mod cpio;
mod modules;

pub use cpio::Archive;
pub use modules::{Module, load_order};
