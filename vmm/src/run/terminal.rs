//! The operator's terminal, handed to the guest for the length of the run.

use std::io::{self, IsTerminal, Stdin};
use std::os::fd::AsFd;

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
pub struct RawTerminal<T: AsFd = Stdin> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> RawTerminal<T> {
    /// Switches `terminal` over.
    ///
    /// Output keeps its line ends, so that what ccvm itself says stays legible.
    ///
    /// # Errors
    /// When it is no terminal.
    pub fn enter(terminal: T) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
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
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl<T: AsFd> Drop for RawTerminal<T> {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.terminal, OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "cannot put the terminal back as it was");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;

    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

    use super::*;

    /// Both ends of a terminal.
    pub(in crate::run) fn terminal() -> (impl AsFd, File) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let terminal = File::open(name.to_str().unwrap()).unwrap();
        (controller, terminal)
    }

    fn is_raw(terminal: &File) -> bool {
        let modes = tcgetattr(terminal).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    #[test]
    fn a_terminal_is_as_before_after_the_run_and_after_a_panic() {
        let (_controller, terminal) = terminal();
        assert!(!is_raw(&terminal));
        let raw = RawTerminal::enter(&terminal).unwrap();
        assert!(is_raw(&terminal));
        drop(raw);
        assert!(!is_raw(&terminal));
        let inner = terminal.try_clone().unwrap();
        let panicked = std::panic::catch_unwind(move || {
            let _raw = RawTerminal::enter(&inner).unwrap();
            assert!(!is_raw(&inner));
        });
        assert!(panicked.is_err());
        assert!(!is_raw(&terminal));
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(RawTerminal::enter(&file).is_err());
    }
}
