//! What the TOML parser complains of, in the words of the other findings.

use toml::de::Error;

use super::source::Source;
use crate::diagnostic::{Code, Diagnostic};

/// The finding for a complaint of the TOML parser about `source`.
pub(super) fn finding(error: &Error, source: &Source) -> Diagnostic {
    let finding = Diagnostic::error(Code::ConfigSyntax, error.message());
    let Some(span) = error.span() else {
        return finding;
    };
    let line = source.position(span.start).line;
    let finding = finding.at(span);
    match source.text().lines().nth(line - 1).and_then(quoted) {
        Some(quoted) => finding.with_help(format!("text stands in quotes: `{quoted}`")),
        None => finding,
    }
}

/// The line with its value in quotes, when its key takes text and the value has none.
fn quoted(line: &str) -> Option<String> {
    const TEXT_KEYS: [&str; 9] = [
        "platform", "memory", "dma-rule", "kernel", "initrd", "cmdline", "firmware", "pci", "dma",
    ];
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let bare = !value.is_empty() && !value.contains(['"', '\'', '#', '\\']);
    (bare && TEXT_KEYS.contains(&key)).then(|| format!("{key} = \"{value}\""))
}
