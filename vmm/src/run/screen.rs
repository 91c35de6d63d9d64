//! A terminal that shows the guest's console and what ccvm says.
//!
//! ```text
//! guest ─► Output ─► ConsoleSide ─┐
//!                                 ├─► one lock, and whether a line is begun ─► the terminal
//! log, findings ───► LogSide ─────┘
//! ```
//!
//! Where both are one terminal, what ccvm says starts on a line of its own: after a line that the guest
//! has only begun, a line end comes first. Anywhere else the two do not know of each other, so that a
//! console which nobody reads holds up no log.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::fstat;

/// Where console and log go.
#[derive(Debug)]
pub struct Screen {
    /// Where the cursor is, if both go to one terminal.
    cursor: Option<Mutex<Cursor>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    LineStart,
    InLine,
}

impl Cursor {
    /// Where it is after `bytes`.
    fn after(self, bytes: &[u8]) -> Self {
        match bytes.last() {
            None => self,
            Some(b'\n') => Self::LineStart,
            Some(_) => Self::InLine,
        }
    }
}

impl Screen {
    /// Of stdout for the console and stderr for the log.
    #[must_use]
    pub fn of_this_process() -> Arc<Self> {
        Self::of(&io::stdout(), &io::stderr())
    }

    fn of(console: &(impl AsFd + IsTerminal), log: &(impl AsFd + IsTerminal)) -> Arc<Self> {
        let shared = is_one_terminal(console, log);
        Arc::new(Self {
            cursor: shared.then_some(Mutex::new(Cursor::LineStart)),
        })
    }

    /// What the guest writes to, before `sink`.
    pub fn console<W: Write>(self: &Arc<Self>, sink: W) -> ConsoleSide<W> {
        ConsoleSide {
            screen: Arc::clone(self),
            sink,
        }
    }

    /// What ccvm writes to, before `sink`: each write is one or more whole lines.
    pub fn log<W: Write>(self: &Arc<Self>, sink: W) -> LogSide<W> {
        LogSide {
            screen: Arc::clone(self),
            sink,
        }
    }

    fn cursor(&self) -> Option<MutexGuard<'_, Cursor>> {
        let cursor = self.cursor.as_ref()?;
        Some(cursor.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The guest's way to the screen.
#[derive(Debug)]
pub struct ConsoleSide<W> {
    screen: Arc<Screen>,
    sink: W,
}

impl<W: Write> Write for ConsoleSide<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut cursor) = self.screen.cursor() else {
            return self.sink.write(bytes);
        };
        self.sink.write_all(bytes)?;
        // What waits in a buffer is not where the cursor is.
        self.sink.flush()?;
        *cursor = cursor.after(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// The way to the screen for what ccvm says.
#[derive(Debug)]
pub struct LogSide<W> {
    screen: Arc<Screen>,
    sink: W,
}

impl<W: Write> Write for LogSide<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut cursor) = self.screen.cursor() else {
            return self.sink.write(bytes);
        };
        // A terminal with raw keys still turns this into a return and a line feed.
        if *cursor == Cursor::InLine {
            self.sink.write_all(b"\n")?;
        }
        self.sink.write_all(bytes)?;
        self.sink.flush()?;
        *cursor = cursor.after(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn is_one_terminal(one: &(impl AsFd + IsTerminal), other: &(impl AsFd + IsTerminal)) -> bool {
    let device = |file: &dyn AsFd| fstat(file.as_fd()).ok().map(|stat| stat.st_rdev);
    one.is_terminal() && other.is_terminal() && device(&one) == device(&other)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::run::terminal::tests::terminal;

    /// A screen of which both sides write to the same place.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(cursor: Option<Mutex<Cursor>>) -> String {
        let screen = Arc::new(Screen { cursor });
        let paper = Paper::default();
        let (mut console, mut log) = (screen.console(paper.clone()), screen.log(paper.clone()));
        log.write_all(b"WARN a\n").unwrap();
        console.write_all(b"boot\r\nlogin: ").unwrap();
        log.write_all(b"WARN b\n").unwrap();
        log.write_all(b"WARN c\n").unwrap();
        console.write_all(b"user\r\n").unwrap();
        log.write_all(b"WARN d\n").unwrap();
        paper.text()
    }

    #[test]
    fn on_a_shared_terminal_what_ccvm_says_has_lines_of_its_own() {
        assert_eq!(
            written(Some(Mutex::new(Cursor::LineStart))),
            "WARN a\nboot\r\nlogin: \nWARN b\nWARN c\nuser\r\nWARN d\n"
        );
    }

    #[test]
    fn what_does_not_share_a_terminal_is_left_alone() {
        assert_eq!(
            written(None),
            "WARN a\nboot\r\nlogin: WARN b\nWARN c\nuser\r\nWARN d\n"
        );
    }

    #[test]
    fn one_terminal_is_told_from_two_and_from_files() {
        let (_first, one) = terminal();
        let (_second, other) = terminal();
        let again = one.try_clone().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(Screen::of(&one, &again).cursor.is_some());
        for (console, log) in [(&one, &other), (&one, &file), (&file, &one), (&file, &file)] {
            let (console, log): (&File, &File) = (console, log);
            assert!(Screen::of(console, log).cursor.is_none());
        }
    }
}
