//! Lines on the 16550.

use core::cell::Cell;
use core::fmt::{self, Write};

use crate::mmio;

/// The address of the serial port, where there is one.
struct Port(Cell<u64>);

// SAFETY: there is one processor, and no exception handler writes the address.
unsafe impl Sync for Port {}

static PORT: Port = Port(Cell::new(0));

/// Line status register: the transmitter takes a byte.
const LINE_STATUS: u64 = 5;
const TRANSMITTER_EMPTY: u8 = 0x20;

/// Prints at this address from now on.
pub fn init(address: u64) {
    PORT.0.set(address);
}

/// Writes to the port.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let port = PORT.0.get();
        if port == 0 {
            return Ok(());
        }
        for byte in text.bytes() {
            while mmio::read8(port + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
            mmio::write8(port, byte);
        }
        Ok(())
    }
}

/// Prints one line.
#[macro_export]
macro_rules! report {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The port never fails.
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}
