//! The JSON Schemas of the documents that ccvm reads and writes.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::config::file::ConfigFile;
use crate::control::protocol::Line;
use crate::host::HostFacts;
use crate::measure::report::MeasureReport;
use crate::report::Report;

/// A document with a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The config file (TOML).
    Config,
    /// Recorded host facts (JSON).
    Host,
    /// The report of a check (JSON).
    Report,
    /// Requests and responses of the control socket (JSON lines).
    Control,
    /// What a verifier should expect (JSON).
    Measure,
}

impl Document {
    /// Its JSON Schema, draft 2020-12.
    #[must_use]
    pub fn schema(self) -> Schema {
        match self {
            Self::Config => of::<ConfigFile>(),
            Self::Host => of::<HostFacts>(),
            Self::Report => of::<Report>(),
            Self::Control => of::<Line>(),
            Self::Measure => of::<MeasureReport>(),
        }
    }
}

fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(AbsentNotNull))
        .into_generator()
        .into_root_schema_for::<T>()
}

/// What is unknown is absent from our documents, never `null`.
#[derive(Debug, Clone)]
struct AbsentNotNull;

impl Transform for AbsentNotNull {
    fn transform(&mut self, schema: &mut Schema) {
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = choices.as_mut_slice() {
                let only = std::mem::take(only);
                object.remove("anyOf");
                object.extend(only);
            }
        }
        if object.get("default").is_some_and(Value::is_null) {
            object.remove("default");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_admits_null() {
        let documents = [
            Document::Config,
            Document::Host,
            Document::Report,
            Document::Control,
            Document::Measure,
        ];
        for document in documents {
            let text = document.schema().to_value().to_string();
            assert!(!text.contains("null"), "{document:?}: {text}");
        }
    }
}
