//! How a run ends.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Why a VM has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest turned itself off.
    PowerOff,
    /// The guest asked for a reboot; whoever started ccvm decides on that.
    Reboot,
    /// The guest crashed and said so.
    Crash,
    /// The operator pressed Ctrl-A x.
    Quit,
    /// The operator said so by `ccvm ctl`.
    Stopped,
    /// This process was told to end, by the signal with this number.
    Signal(i32),
    /// The host could not go on running the guest.
    Failed(String),
}

impl Ending {
    /// The exit code of `ccvm run`. 1 and 2 stand for VMs that were refused before they ran.
    ///
    /// | code | ending |
    /// |---|---|
    /// | 0 | poweroff |
    /// | 3 | reboot |
    /// | 4 | crash |
    /// | 5 | quit by Ctrl-A x |
    /// | 6 | failed |
    /// | 7 | stopped by `ccvm ctl` |
    /// | 128 + n | signal n |
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::PowerOff => 0,
            Self::Reboot => 3,
            Self::Crash => 4,
            Self::Quit => 5,
            Self::Failed(_) => 6,
            Self::Stopped => 7,
            Self::Signal(number) => u8::try_from(*number).map_or(u8::MAX, |number| 128 | number),
        }
    }

    /// Its name in statistics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Crash => "crash",
            Self::Quit => "quit",
            Self::Stopped => "stopped",
            Self::Signal(_) => "signal",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest has turned itself off"),
            Self::Reboot => f.write_str("the guest asks for a reboot"),
            Self::Crash => f.write_str("the guest has crashed"),
            Self::Quit => f.write_str("stopped by Ctrl-A x"),
            Self::Stopped => f.write_str("stopped by ccvm ctl"),
            Self::Signal(number) => write!(f, "stopped by signal {number}"),
            Self::Failed(why) => write!(f, "the VM cannot go on: {why}"),
        }
    }
}

/// Where the first reason to end is kept; later ones are consequences.
pub struct EndOfRun {
    first: OnceLock<Ending>,
    event: EventFd,
}

impl EndOfRun {
    /// Of a VM that runs.
    ///
    /// # Errors
    /// When the process has too many files open.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            first: OnceLock::new(),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Ends the run, unless it has ended before.
    pub fn end(&self, ending: Ending) {
        if self.first.set(ending).is_ok() {
            // The event stays signalled: nobody reads it, and one write cannot overflow it.
            let _ = self.event.write(1);
        }
    }

    /// Why the run has ended, if it has.
    #[must_use]
    pub fn ending(&self) -> Option<&Ending> {
        self.first.get()
    }

    /// Readable once the run has ended.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

/// A bug in a thread that the guest depends on ends the run, rather than leave a VM that hangs.
pub struct EndOnPanic {
    end: Arc<EndOfRun>,
    who: &'static str,
}

impl EndOnPanic {
    /// For the thread that holds this; `who` begins a sentence.
    #[must_use]
    pub const fn new(end: Arc<EndOfRun>, who: &'static str) -> Self {
        Self { end, who }
    }
}

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let why = format!("{} has panicked", self.who);
            self.end.end(Ending::Failed(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_an_exit_code_of_its_own() {
        let endings = [
            Ending::PowerOff,
            Ending::Reboot,
            Ending::Crash,
            Ending::Quit,
            Ending::Failed(String::new()),
            Ending::Stopped,
            Ending::Signal(2),
            Ending::Signal(15),
        ];
        let codes = endings.map(|ending| ending.exit_code());
        assert_eq!(codes, [0, 3, 4, 5, 6, 7, 130, 143]);
    }

    #[test]
    fn the_first_reason_counts() {
        let run = EndOfRun::new().unwrap();
        assert_eq!(run.ending(), None);
        run.end(Ending::Reboot);
        run.end(Ending::Quit);
        assert_eq!(run.ending(), Some(&Ending::Reboot));
    }
}
