//! A running VM seen from outside of it: its console, the signals of this process, its end.
//!
//! ```text
//! stdin ─► input ─► serial port ◄──► guest ─► output ─► screen ─► stdout      (a thread of its own)
//! signals ────────┐
//! Ctrl-A x ───────┼─► EndOfRun ─► the loop ends, vCPUs are stopped
//! vCPU exits ─────┘
//! ```

mod ending;
mod escape;
mod events;
mod input;
mod output;
mod pause;
mod screen;
mod signals;
mod terminal;

pub use ending::{EndOfRun, EndOnPanic, Ending};
pub use events::{EventLoop, EventLoopError};
pub use input::{ConsoleInput, InputPort};
pub use output::{Output, OutputWriter};
pub use pause::{Gate, Pause, Stuck};
pub use screen::{ConsoleSide, LogSide, Screen};
pub use signals::Signals;
pub use terminal::{RawTerminal, is_ours};
