//! JSON Schema as Markdown: a table for each object, a list for each set of words.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::fmt::Write as _;

use serde_json::Value;

/// Writes the reference of one schema.
pub(crate) struct Reference<'s> {
    schema: &'s Value,
    /// Objects that a field mentions, in the order of their first mention.
    mentioned: Vec<String>,
    written: usize,
}

impl<'s> Reference<'s> {
    pub(crate) fn new(schema: &'s Value) -> Self {
        Self {
            schema,
            mentioned: Vec::new(),
            written: 0,
        }
    }

    /// An object: what it is, its fields (called `noun`s), and the words that they can be.
    pub(crate) fn object(&mut self, noun: &str, object: &'s Value) -> String {
        let Some(fields) = object["properties"].as_object() else {
            return format!("{}\n\n", description(object));
        };
        let mut text = format!(
            "{}\n\n| {noun} | value | default | meaning |\n|---|---|---|---|\n",
            description(object)
        );
        let required = object["required"].as_array();
        let mut words = String::new();
        for (name, field) in fields {
            let must = required.is_some_and(|names| names.iter().any(|n| n == name));
            let default = match &field["default"] {
                Value::Null if must => "(required)".to_owned(),
                Value::Null | Value::Array(_) => String::new(),
                Value::String(text) if text.is_empty() => "empty".to_owned(),
                default => format!("`{}`", default.to_string().trim_matches('"')),
            };
            let value = self.value(field);
            let meaning = description(field);
            writeln!(text, "| `{name}` | {value} | {default} | {meaning} |").unwrap();
            words.push_str(&self.words(name, field));
        }
        format!("{text}\n{words}")
    }

    /// The objects that have been mentioned so far, and those that they mention.
    pub(crate) fn mentioned(&mut self) -> String {
        let mut text = String::new();
        while let Some(name) = self.mentioned.get(self.written).cloned() {
            self.written += 1;
            let object = &self.schema["$defs"][&name];
            write!(text, "### {name}\n\n{}", self.object("field", object)).unwrap();
        }
        text
    }

    /// What a field's value is.
    fn value(&mut self, field: &'s Value) -> String {
        if let Some(name) = field["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap();
            let target = &self.schema["$defs"][name];
            if target["properties"].is_object() {
                if !self.mentioned.iter().any(|known| known == name) {
                    self.mentioned.push(name.to_owned());
                }
                return format!("[{name}](#{})", name.to_lowercase());
            }
            return match choices(target) {
                Some(_) => "one of the words below".to_owned(),
                None => description(target),
            };
        }
        match field["type"].as_str() {
            Some("array") => format!("list of {}", self.value(&field["items"])),
            Some("string") => "text".to_owned(),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("integer") => match (field["minimum"].as_u64(), field["maximum"].as_u64()) {
                (Some(least), Some(most)) if most < 1 << 32 => {
                    format!("whole number, {least} to {most}")
                }
                _ => "whole number".to_owned(),
            },
            other => panic!("no name for the type {other:?} of {field}"),
        }
    }

    /// The words that the field `name` can be, if it is a closed set.
    fn words(&self, name: &str, field: &Value) -> String {
        let field = match field["type"].as_str() {
            Some("array") => &field["items"],
            _ => field,
        };
        let target = field["$ref"].as_str().map(|target| {
            let definition = target.rsplit('/').next().unwrap();
            &self.schema["$defs"][definition]
        });
        let Some(choices) = target.and_then(choices) else {
            return String::new();
        };
        let mut text = format!("`{name}` is one of\n");
        for (word, meaning) in choices {
            writeln!(text, "- `{word}`: {meaning}").unwrap();
        }
        text.push('\n');
        text
    }
}

/// The words of a closed set, with their meanings.
fn choices(schema: &Value) -> Option<Vec<(&str, String)>> {
    let choices = schema["oneOf"].as_array()?;
    choices
        .iter()
        .map(|choice| Some((choice["const"].as_str()?, description(choice))))
        .collect()
}

fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}
