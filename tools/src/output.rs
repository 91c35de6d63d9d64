//! What goes to the terminal. A reader that has gone away does not change a verdict, so nobody is
//! told of a write that fails.

use std::io::{IsTerminal, Write as _};

use vmm::diagnostic::Diagnostic;
use vmm::report::{self, Style};

/// Prints an answer.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Prints a complaint that has no code.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "error: {message}");
}

/// Prints findings that concern no file.
pub(crate) fn findings(diagnostics: &[Diagnostic]) {
    let style = style(&std::io::stderr());
    explain(&report::findings(diagnostics, None, style));
}

/// Prints what there is to say beside an answer.
pub(crate) fn explain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Colours for a terminal whose user has not asked for none (<https://no-color.org>).
pub(crate) fn style(stream: &impl IsTerminal) -> Style {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    match stream.is_terminal() && !refused && !dumb {
        true => Style::Coloured,
        false => Style::Plain,
    }
}
