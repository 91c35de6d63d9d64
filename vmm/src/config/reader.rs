//! Reads one table of the file: complains of unknown keys, and hands out typed values.
//!
//! A finding never stops the reading, so that one run reports them all. [`Reported`] marks a value
//! that is missing *because* of a finding: what depends on it is skipped without another one.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Table};
use crate::diagnostic::{Code, Diagnostic};

/// The value is not there, and a finding says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reported;

/// Why a value cannot be accepted.
pub(super) struct Unacceptable {
    message: String,
    help: Option<String>,
}

impl Unacceptable {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A value with the bytes that it stands in.
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A table of the file, its values sorted under the keys that are known.
pub(super) struct Section<'t> {
    table: Table,
    header: Range<usize>,
    values: BTreeMap<&'static str, &'t Spanned<DeValue<'t>>>,
}

impl<'t> Section<'t> {
    /// Sorts the entries of `entries`. An entry under a wrong key is reported, and then read under
    /// the key that was probably meant, so that its absence does not cause findings of its own.
    pub(super) fn new(
        table: Table,
        header: Range<usize>,
        entries: &'t DeTable<'t>,
        findings: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut section = Self {
            table,
            header,
            values: BTreeMap::new(),
        };
        let mut unknown = Vec::new();
        for (key, value) in entries {
            let known = table.keys().iter().find(|known| **known == key.as_ref());
            match known {
                Some(known) => {
                    section.values.insert(known, value);
                }
                None => unknown.push((key, value)),
            }
        }
        for (key, value) in unknown {
            let meant = table.nearest_key(key.as_ref());
            findings.push(unknown_key(table, key.as_ref(), meant).at(key.span()));
            if let Some(meant) = meant {
                section.values.entry(meant).or_insert(value);
            }
        }
        section
    }

    /// The table's own name in the file.
    pub(super) fn header(&self) -> Range<usize> {
        self.header.clone()
    }

    /// The value of `key` as it stands in the file.
    pub(super) fn raw(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.values.get(key).copied()
    }

    /// The value of `key` as `parse` understands it, if the key is there.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        findings: &mut Vec<Diagnostic>,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Unacceptable>,
    ) -> Result<Option<Located<T>>, Reported> {
        let Some(raw) = self.raw(key) else {
            return Ok(None);
        };
        match parse(raw.get_ref()) {
            Ok(value) => Ok(Some(Located {
                value,
                span: raw.span(),
            })),
            Err(why) => {
                let mut finding =
                    Diagnostic::error(Code::InvalidValue, format!("`{key}` {}", why.message))
                        .at(raw.span());
                finding.help = why.help;
                findings.push(finding);
                Err(Reported)
            }
        }
    }

    /// As [`Section::optional`], for a key that must be there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        findings: &mut Vec<Diagnostic>,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Unacceptable>,
    ) -> Result<Located<T>, Reported> {
        self.optional(key, findings, parse)?.ok_or_else(|| {
            findings.push(
                Diagnostic::error(
                    Code::MissingKey,
                    format!("{} has no `{key}`", self.table.header()),
                )
                .with_help(format!("add `{key} = {example}`"))
                .at(self.header()),
            );
            Reported
        })
    }
}

fn unknown_key(table: Table, key: &str, meant: Option<&str>) -> Diagnostic {
    let message = match table {
        Table::Root => format!("a config has no table `{key}`"),
        _ => format!("{} has no key `{key}`", table.header()),
    };
    let help = match (meant, table.elsewhere(key)) {
        (_, Some(other)) => format!("`{key}` belongs in {}", other.header()),
        (Some(meant), None) => format!("did you mean `{meant}`?"),
        (None, None) if table.keys().is_empty() => "it has none".to_owned(),
        (None, None) => format!("it can have only {}", keys::choice(table.keys())),
    };
    Diagnostic::error(Code::UnknownKey, message).with_help(help)
}
