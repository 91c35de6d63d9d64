//! Images for the testbed: archives that a kernel unpacks as its first file system.

mod bzimage;
mod cpio;
mod modules;
mod qcow2;

pub use bzimage::unpack;
pub use cpio::Archive;
pub use modules::{Module, load_order};
pub use qcow2::empty_qcow2;
