//! Findings with the lines of the file that they are about.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, normalize_untrusted_str};

use super::Style;
use crate::config::Source;
use crate::diagnostic::{Diagnostic, Severity};

/// Columns that a report may take.
pub(super) const WIDTH: usize = 100;

/// The findings one after another, each with the lines of `source` that it points at.
#[must_use]
pub fn findings(diagnostics: &[Diagnostic], source: Option<&Source>, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Unicode).term_width(WIDTH);
    let rendered: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| finding(diagnostic, source, &renderer) + "\n")
        .collect();
    rendered.join("\n")
}

fn finding(diagnostic: &Diagnostic, source: Option<&Source>, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let code = diagnostic.code.to_string();
    // The title stands behind "warning[CCVM0000]: ", the help behind a mark and "help: ".
    let message = wrapped(&diagnostic.message, WIDTH - 19);
    let title = level.primary_title(message).id(code.as_str());
    let mut group = annotate_snippets::Group::with_title(title);
    if let Some(source) = source {
        group = match snippet(diagnostic, source) {
            Some(snippet) => group.element(snippet),
            None => group.element(annotate_snippets::Origin::path(source.name())),
        };
    }
    if let Some(help) = &diagnostic.help {
        let help = wrapped(&normalize_untrusted_str(help), WIDTH - 13);
        group = group.element(Level::HELP.message(help));
    }
    renderer.render(&[group])
}

fn snippet<'s>(
    diagnostic: &Diagnostic,
    source: &'s Source,
) -> Option<Snippet<'s, annotate_snippets::Annotation<'s>>> {
    let span = diagnostic.span.clone()?;
    // A file that does not hold the span is not the one that the finding is about.
    source.text().get(span.clone())?;
    let snippet = Snippet::source(source.text())
        .path(source.name())
        .annotation(AnnotationKind::Primary.span(span));
    Some(match diagnostic.related.as_deref() {
        Some(related) => snippet.annotation(
            AnnotationKind::Context
                .span(related.span.clone())
                .label(related.what),
        ),
        None => snippet,
    })
}

/// The words of `text` on lines of at most `width` characters, as far as words allow.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 {
            let fits = column + 1 + length <= width;
            lines.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        lines.push_str(word);
        column += length;
    }
    lines
}
