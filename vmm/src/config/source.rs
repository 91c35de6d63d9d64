//! A file that the operator wrote, so that a finding can point into it.

/// Text with the name that the operator knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: String,
    text: String,
}

/// A place in a text as editors count it: from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Source {
    /// `text`, known to the operator as `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// What the operator calls it: usually a path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the byte at `offset` stands; beyond the end counts as the end.
    #[must_use]
    pub fn position(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before
                .get(line_start..)
                .map_or(0, |part| part.chars().count())
                + 1,
        }
    }
}

/// The byte of `text` at this line and this column in *bytes*, both from 1, as `serde_json` counts.
#[must_use]
pub fn offset(text: &str, line: usize, column: usize) -> usize {
    let lines = text.split_inclusive('\n');
    let start: usize = lines.take(line.saturating_sub(1)).map(str::len).sum();
    let mut offset = start
        .saturating_add(column.saturating_sub(1))
        .min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_columns_are_characters() {
        let source = Source::new("x", "a\nbäc\n");
        let at = |offset| {
            let position = source.position(offset);
            (position.line, position.column)
        };
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (2, 1));
        assert_eq!(at(5), (2, 3));
        assert_eq!(at(99), (3, 1));
    }

    #[test]
    fn offsets_undo_positions_and_stay_on_characters() {
        let source = Source::new("x", "a\nbäc\n");
        assert_eq!(offset(source.text(), 2, 1), 2);
        assert_eq!(offset(source.text(), 2, 3), 3);
        assert_eq!(offset(source.text(), 9, 9), source.text().len());
        assert_eq!(offset(source.text(), 0, 0), 0);
    }
}
