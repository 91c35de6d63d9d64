//! Lines on the 16550.

use core::fmt::{self, Write};

use crate::arch::serial;
use crate::lock::{Held, Spin};

/// Whoever prints a line.
static LINE: Spin<()> = Spin::new(());

/// Writes a line to the port.
pub struct Line {
    _held: Option<Held<'static, ()>>,
}

impl Line {
    /// Waits for the line that another processor prints, but not for good: this may be an exception
    /// in the middle of one.
    pub fn new() -> Self {
        const TRIES: u32 = 10_000_000;
        Self {
            _held: (0..TRIES).find_map(|_| LINE.try_lock()),
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(serial::put);
        Ok(())
    }
}

/// Prints one line.
#[macro_export]
macro_rules! report {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The port never fails.
        let _ = writeln!($crate::console::Line::new(), $($argument)*);
    }};
}
