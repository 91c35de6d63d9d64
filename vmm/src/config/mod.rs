//! The configuration file: what the operator asked for.
//!
//! ```text
//! text ─► toml::de::DeTable ─► Section (known keys) ─► VmSpec + Locations
//!                │                  │                      │
//!                └──────────────────┴── Vec<Diagnostic> ◄──┘   all of them, in the file's order
//! ```
//!
//! [`mod@file`] describes the same format for the JSON Schema; a test holds the two together.

mod disks;
pub mod file;
pub mod flags;
mod keys;
mod locations;
mod number_list;
mod reader;
mod resources;
mod sections;
pub mod size;
pub mod source;
pub mod spec;
mod syntax;
#[cfg(test)]
mod tests;
mod values;
mod virtio;

use std::collections::BTreeSet;
use std::path::Path;

use toml::de::DeTable;

pub use flags::Flags;
pub use locations::Locations;
pub use number_list::{NumberList, NumberListError};
pub use size::Size;
pub use source::Source;
pub use spec::VmSpec;

use crate::diagnostic::{Code, Diagnostic};
use sections::Sections;

/// What a config file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What was asked for, as far as it was understood; absent when too little was. With errors in
    /// [`Parsed::diagnostics`] it may be planned, to find more of them, but not be run.
    pub spec: Option<VmSpec>,
    /// Where in the file the parts of the spec stand.
    pub locations: Locations,
    /// Everything that is wrong with the file, in its order.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a config. Relative paths in it count from `base`, the directory that it lies in.
#[must_use]
pub fn parse(source: &Source, base: &Path) -> Parsed {
    let (document, errors) = DeTable::parse_recoverable(source.text());
    let mut sections = Sections::new(base);
    let mut spec = sections.document(document.get_ref());
    let Sections {
        mut findings,
        locations,
        ..
    } = sections;
    if !errors.is_empty() {
        spec = None;
        let syntax = errors.iter().map(|error| syntax::finding(error, source));
        findings = beside_syntax_errors(syntax.collect(), findings, source);
    }
    findings.sort_by_key(|finding| finding.span.as_ref().map_or(0, |span| span.start));
    Parsed {
        spec,
        locations,
        diagnostics: findings,
    }
}

/// The first syntax error of each line, and those other findings that are not merely a consequence:
/// none on such a line, and nothing about what is absent.
fn beside_syntax_errors(
    syntax: Vec<Diagnostic>,
    mut others: Vec<Diagnostic>,
    source: &Source,
) -> Vec<Diagnostic> {
    let line = |finding: &Diagnostic| {
        let span = finding.span.as_ref();
        span.map(|span| source.position(span.start).line)
    };
    others.retain(|finding| {
        let placed = finding.span.as_ref().is_some_and(|span| !span.is_empty());
        placed && finding.code != Code::MissingKey
    });
    let mut broken = BTreeSet::new();
    let mut findings: Vec<Diagnostic> = syntax
        .into_iter()
        .filter(|finding| broken.insert(line(finding)))
        .collect();
    findings.extend(
        others
            .into_iter()
            .filter(|other| !broken.contains(&line(other))),
    );
    findings
}
