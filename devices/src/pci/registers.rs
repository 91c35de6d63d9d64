//! Offsets and bits of configuration space (PCI Local Bus 3.0, chapter 6; PCI Express Base, 7).

/// Vendor id.
pub const VENDOR_ID: u16 = 0x00;
/// Command.
pub const COMMAND: u16 = 0x04;
/// Status.
pub const STATUS: u16 = 0x06;
/// Revision id, then the three bytes of the class code.
pub const REVISION_ID: u16 = 0x08;
/// Cache line size.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// First base address register.
pub const BAR0: u16 = 0x10;
/// Subsystem vendor id, then subsystem id.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Offset of the first capability.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line: scratch space for software.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin: 0 none, 1 to 4 INTA to INTD.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// Minimum grant, then maximum latency.
pub const MIN_GRANT: u16 = 0x3e;
/// First byte beyond the header.
pub const HEADER_END: u16 = 0x40;
/// First byte of extended configuration space.
pub const EXTENDED: u16 = 0x100;

/// Command: answer I/O accesses.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: answer memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: may do DMA and send message interrupts.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: memory write and invalidate.
pub const COMMAND_WRITE_INVALIDATE: u16 = 1 << 4;
/// Command: react to parity errors.
pub const COMMAND_PARITY: u16 = 1 << 6;
/// Command: report system errors.
pub const COMMAND_SERR: u16 = 1 << 8;
/// Command: do not assert the interrupt pin.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;
