//! What the guest sees: the buses of memory and ports, interrupt traits, PCI, the serial port, the RTC, a
//! GPIO controller, registers for power, virtio devices and passed-through functions.
//!
//! Nothing here knows KVM or VFIO. The few things that a device needs of them are the small traits
//! in [`irq`] and [`passthrough`], which `vmm` implements.
#![forbid(unsafe_code)]

pub mod bus;
pub mod doorbell;
pub mod gpio;
pub mod ioapic;
pub mod irq;
pub mod pair;
pub mod panic;
pub mod passthrough;
pub mod pci;
pub mod ports;
pub mod power;
pub mod rate_limit;
pub mod rtc;
pub mod serial;
pub mod virtio;
