//! A config written as flags of a command line.
//!
//! ```text
//! --memory 512MiB  ─┐            ┌─► TOML ─► parse ─► VmSpec + findings with bytes of the TOML
//! --device A,dma=X ─┴─► Flags ───┤                                  │ translated by the pieces
//!                                └─► the flags as text ◄────────────┘
//! ```
//!
//! There is one reader and one set of rules, the file's. Flags become the file that says the same, and
//! what is found in it is shown where the operator wrote it: in the flags.

use std::ops::Range;
use std::path::Path;

use serde_json::Value as Json;

use super::{Parsed, Source, parse};
use crate::schema::Document;

/// What a command line is called in findings.
const NAME: &str = "command line";

/// Flags that describe a VM, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Flags {
    list: Vec<Flag>,
}

#[derive(Debug)]
struct Flag {
    name: &'static str,
    table: &'static str,
    key: &'static str,
    value: String,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A key of a table that is there once.
    Key,
    /// A table of a list, by its first key and others behind commas.
    Entry,
    /// A table that is there once and has no keys.
    Bare,
}

/// A config as text, twice: as the file that it amounts to, and as the flags that it was given by.
#[derive(Debug, Default)]
struct Texts {
    toml: String,
    shown: String,
    /// What is the same in both.
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    toml: Range<usize>,
    shown: Range<usize>,
}

impl Flags {
    /// The flag `name` sets `key` of `[table]`, if it was given.
    pub fn key(
        &mut self,
        name: &'static str,
        (table, key): (&'static str, &'static str),
        value: Option<impl AsRef<str>>,
    ) {
        self.add(name, (table, key), value, Form::Key);
    }

    /// Each value of the flag `name` is a `[[table]]`: the value of its `key`, and behind it
    /// `,KEY=VALUE` for others. A comma without a key behind it belongs to the value before.
    pub fn entries(
        &mut self,
        name: &'static str,
        (table, key): (&'static str, &'static str),
        values: &[impl AsRef<str>],
    ) {
        self.add(name, (table, key), values, Form::Entry);
    }

    /// The flag `name` is the table, which has no keys.
    pub fn bare(&mut self, name: &'static str, table: &'static str) {
        self.add(name, (table, ""), Some(""), Form::Bare);
    }

    fn add<T: AsRef<str>>(
        &mut self,
        name: &'static str,
        (table, key): (&'static str, &'static str),
        values: impl IntoIterator<Item = T>,
        form: Form,
    ) {
        self.list.extend(values.into_iter().map(|value| Flag {
            name,
            table,
            key,
            value: value.as_ref().to_owned(),
            form,
        }));
    }

    /// The file that says the same.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.texts().toml
    }

    /// Reads the config. Relative paths in it count from the working directory; findings point into
    /// the source that is returned, which has one flag a line.
    #[must_use]
    pub fn parse(&self) -> (Source, Parsed) {
        let texts = self.texts();
        let mut parsed = parse(&Source::new(NAME, texts.toml.as_str()), Path::new(""));
        for finding in &mut parsed.diagnostics {
            finding.span = finding.span.take().and_then(|span| texts.shown_for(&span));
            finding.related = finding.related.take().and_then(|mut related| {
                related.span = texts.shown_for(&related.span)?;
                Some(related)
            });
        }
        parsed.locations.translate(|span| texts.shown_for(span));
        (Source::new(NAME, texts.shown), parsed)
    }

    fn texts(&self) -> Texts {
        let types = Types(Document::Config.schema().to_value());
        let mut texts = Texts::default();
        for (index, first) in self.list.iter().enumerate() {
            let before = self.list.iter().take(index);
            match first.form {
                Form::Entry => {
                    texts.header(&format!("[[{}]]", first.table));
                    texts.entry(first, &types);
                }
                Form::Bare => texts.bare(first),
                Form::Key if before.clone().all(|flag| flag.table != first.table) => {
                    texts.header(&format!("[{}]", first.table));
                    let rest = self.list.iter().skip(index);
                    for flag in rest.filter(|flag| flag.table == first.table) {
                        texts.flag(flag, &types);
                    }
                }
                Form::Key => {}
            }
        }
        texts
    }
}

impl Texts {
    fn header(&mut self, header: &str) {
        if !self.toml.is_empty() {
            self.toml.push('\n');
        }
        self.toml.push_str(header);
        self.toml.push('\n');
    }

    fn bare(&mut self, flag: &Flag) {
        self.header("");
        self.toml.pop();
        self.piece(&format!("[{}]", flag.table), flag.name);
        self.toml.push('\n');
        self.shown.push('\n');
    }

    fn flag(&mut self, flag: &Flag, types: &Types) {
        self.shown.push_str(flag.name);
        self.shown.push(' ');
        self.pair(flag.table, flag.key, &flag.value, types);
        self.shown.push('\n');
    }

    /// `VALUE,KEY=VALUE...`
    fn entry(&mut self, flag: &Flag, types: &Types) {
        let mut parts = split(&flag.value).into_iter();
        let first = parts.next().unwrap_or_default();
        self.shown.push_str(flag.name);
        self.shown.push(' ');
        self.pair(flag.table, flag.key, first, types);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            self.shown.push(',');
            self.piece(key, key);
            self.toml.push_str(" = ");
            self.shown.push('=');
            self.piece(&types.literal(flag.table, key, value), value);
            self.toml.push('\n');
        }
        self.shown.push('\n');
    }

    fn pair(&mut self, table: &str, key: &str, value: &str, types: &Types) {
        self.toml.push_str(key);
        self.toml.push_str(" = ");
        self.piece(&types.literal(table, key, value), value);
        self.toml.push('\n');
    }

    /// Writes the same thing in both texts.
    fn piece(&mut self, toml: &str, shown: &str) {
        let start = (self.toml.len(), self.shown.len());
        self.toml.push_str(toml);
        self.shown.push_str(&on_one_line(shown));
        self.pieces.push(Piece {
            toml: start.0..self.toml.len(),
            shown: start.1..self.shown.len(),
        });
    }

    /// Where the flags say what the file says at `span`, if they say it at all.
    fn shown_for(&self, span: &Range<usize>) -> Option<Range<usize>> {
        let holds = |piece: &&Piece| piece.toml.start <= span.start && span.end <= piece.toml.end;
        let piece = self.pieces.iter().find(holds)?;
        Some(piece.shown.clone())
    }
}

/// Cuts before each comma that a key and an equals sign follow.
fn split(text: &str) -> Vec<&str> {
    let is_key = |rest: &str| {
        rest.split_once('=').is_some_and(|(key, _)| {
            let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            !key.is_empty() && key.chars().all(is_letter)
        })
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for (comma, _) in text.match_indices(',') {
        let behind = comma + 1;
        if text.get(behind..).is_some_and(is_key) {
            parts.extend(text.get(start..comma));
            start = behind;
        }
    }
    parts.extend(text.get(start..));
    parts
}

/// The text without line ends, so that each flag is shown in its own line.
fn on_one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

/// What the keys of the config hold, by its schema.
struct Types(Json);

impl Types {
    /// `text` as the file would have it, if it is what the key holds; else as text, for the reader to
    /// say what is wrong with it.
    fn literal(&self, table: &str, key: &str, text: &str) -> String {
        let bare = match self.type_of(table, key) {
            // Of a key that there is not, only the key is wrong.
            Some("integer") | None => {
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
            }
            Some("boolean") => matches!(text, "true" | "false"),
            _ => false,
        };
        match bare {
            true => text.to_owned(),
            false => toml::Value::String(text.to_owned()).to_string(),
        }
    }

    fn type_of(&self, table: &str, key: &str) -> Option<&str> {
        let schema = self.0.get("properties")?.get(table)?;
        let entry = self.resolve(schema.get("items").unwrap_or(schema))?;
        let key = entry.get("properties")?.get(key)?;
        self.resolve(key)?.get("type")?.as_str()
    }

    fn resolve<'j>(&'j self, schema: &'j Json) -> Option<&'j Json> {
        match schema.get("$ref").and_then(Json::as_str) {
            Some(reference) => self.0.pointer(reference.strip_prefix('#')?),
            None => Some(schema),
        }
    }
}

#[cfg(test)]
mod tests;
