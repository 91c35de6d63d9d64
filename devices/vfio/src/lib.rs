//! VFIO devices and the type1 DMA table: one of the two crates that may use unsafe code.

mod iova;

pub use iova::{IovaError, iova_ranges};
