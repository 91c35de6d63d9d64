//! The operator's terminal, handed to the guest for the length of the run.

use std::io::{self, IsTerminal, Stdin};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp,
    tcsetattr,
};

/// Whether stdin is a terminal whose keys are meant for us, not for another job of its shell.
#[must_use]
pub fn is_ours(stdin: &Stdin) -> bool {
    stdin.is_terminal() && tcgetpgrp(stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// A terminal that passes every key on as it is pressed. Dropping this puts it back as it was, when
/// the run ends in an error or a panic, too.
pub struct RawTerminal {
    stdin: Stdin,
    before: Termios,
}

impl RawTerminal {
    /// Switches the terminal on stdin over.
    ///
    /// Output keeps its line ends, so that what ccvm itself says stays legible.
    ///
    /// # Errors
    /// When stdin is no terminal.
    pub fn enter(stdin: Stdin) -> io::Result<Self> {
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.input_modes -= InputModes::IGNBRK
            | InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON;
        raw.local_modes -= LocalModes::ECHO
            | LocalModes::ECHONL
            | LocalModes::ICANON
            | LocalModes::ISIG
            | LocalModes::IEXTEN;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.stdin, OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "cannot put the terminal back as it was");
        }
    }
}
