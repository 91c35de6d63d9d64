//! A running VM seen from outside of it: its console, the signals of this process, its end.
//!
//! ```text
//! stdin ─► input ─► serial port ◄──► guest ─► output ─► stdout      (a thread of its own)
//! signals ────────┐
//! Ctrl-A x ───────┼─► EndOfRun ─► the loop ends, vCPUs are stopped
//! vCPU exits ─────┘
//! ```

mod ending;
mod escape;
mod events;
mod input;
mod output;
mod signals;
mod terminal;

pub use ending::{EndOfRun, Ending};
pub use events::{EventLoop, EventLoopError};
pub use input::ConsoleInput;
pub use output::{Output, OutputWriter};
pub use signals::Signals;
pub use terminal::{RawTerminal, is_ours};
