//! What the guest sees: the MMIO bus, interrupt traits, PCI, the serial port, the RTC and
//! passed-through functions.
//!
//! Nothing here knows KVM or VFIO. The few things that a device needs of them are the small traits
//! in [`irq`] and [`passthrough`], which `vmm` implements.
#![forbid(unsafe_code)]

pub mod bus;
pub mod irq;
pub mod pair;
pub mod panic;
pub mod passthrough;
pub mod pci;
pub mod rate_limit;
pub mod rtc;
pub mod serial;
