//! What only x86-64 VMs have: local APICs and IOAPIC in the kernel, CPUID, segments, I/O ports.

mod cpuid;
mod exit;
mod irqchip;
mod registers;
mod state;
mod tsc;
mod vcpu;

#[cfg(test)]
pub(crate) use cpuid::entry;
pub use cpuid::{Cpuid, Processors};
pub(crate) use exit::decode;
pub use exit::{ArchExit, PortWidth};
pub(crate) use irqchip::routing;
pub use irqchip::{IoapicPin, IoapicPin as IrqInput};
pub use registers::{Registers, Segment};
pub use state::{GDT, LongMode, ProtectedMode};
pub(crate) use vcpu::finalize_rec;

/// The lower half of a number, and the upper one.
pub(crate) fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}
