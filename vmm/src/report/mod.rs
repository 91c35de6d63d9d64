//! What a check prints: the report document, and what is drawn from it.
//!
//! ```text
//! plan::Outcome + findings ─► Report ─┬► JSON
//!                                     ├► text ── map ─► rows
//!                                     └► SVG ─── map ─► rows
//! ```

mod build;
pub mod document;
mod map;
mod snippet;
mod svg;
#[cfg(test)]
mod tests;
mod text;

pub use document::Report;
pub use snippet::findings;
pub use svg::svg;
pub use text::{text, unusable};

/// Whether the reader's terminal shows colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With ANSI colours.
    Coloured,
}
