//! Host facts that were recorded as JSON.

use serde::Deserialize;

use super::facts::{HostFacts, SCHEMA};
use crate::config::source;
use crate::diagnostic::{Code, Diagnostic};

/// Reads a host facts document, as `ccvm host --json` prints it.
///
/// Fields that this version does not know are passed over: they are facts that it cannot use.
///
/// # Errors
/// One diagnostic with its place in the text: the text is not JSON, it is of another schema version,
/// or a value is not one that a host can have.
pub fn from_json(text: &str) -> Result<HostFacts, Diagnostic> {
    #[derive(Deserialize)]
    struct Version {
        schema: Option<u32>,
    }

    let version: Version = serde_json::from_str(text).map_err(|error| unreadable(text, &error))?;
    match version.schema {
        Some(SCHEMA) => {}
        Some(other) => {
            let message = format!("host facts have schema version {other}, not {SCHEMA}");
            return Err(Diagnostic::error(Code::HostFactsVersion, message)
                .with_help("record them again with 'ccvm host --json' of this version"));
        }
        None => {
            let message = "host facts do not name their schema version";
            return Err(
                Diagnostic::error(Code::HostFactsVersion, message).with_help(format!(
                    "add \"schema\": {SCHEMA}, or record them with 'ccvm host --json'"
                )),
            );
        }
    }
    serde_json::from_str(text).map_err(|error| unreadable(text, &error))
}

fn unreadable(text: &str, error: &serde_json::Error) -> Diagnostic {
    let (line, column) = (error.line(), error.column());
    let reason = error.to_string();
    let reason = reason
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&reason);
    let message = format!("host facts: {reason}");
    let start = source::offset(text, line, column);
    let rest = text.get(start..).unwrap_or_default();
    let end = start + rest.chars().next().map_or(0, char::len_utf8);
    if error.is_data() {
        Diagnostic::error(Code::HostFactsValue, message)
            .with_help("'ccvm schema host' prints what the document may hold")
    } else {
        Diagnostic::error(Code::HostFactsSyntax, message)
            .with_help("host facts are JSON, as 'ccvm host --json' prints them")
    }
    .at(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_device(device: &str) -> String {
        format!(
            "{{\"schema\":1,\"arch\":\"aarch64\",\n\"devices\":[\n\
             {{\"pci\":\"0000:00:04.0\",\"vendor\":\"0x8086\",\"device\":\"0x100e\",\n{device}}}]}}"
        )
    }

    #[track_caller]
    fn refused(text: &str, code: Code, needle: &str) {
        let diagnostic = from_json(text).unwrap_err();
        assert_eq!(diagnostic.code, code, "{diagnostic}");
        let place = diagnostic.span.as_ref().map_or(String::new(), |span| {
            let position = source::Source::new("facts", text).position(span.start);
            format!("line {}, column {}: ", position.line, position.column)
        });
        let shown = place + &diagnostic.message;
        assert!(shown.contains(needle), "{shown}");
    }

    #[test]
    fn a_document_without_optional_facts_is_read() {
        let facts = from_json(&with_device("\"class\":\"0x020000\"")).unwrap();
        assert_eq!(facts.kvm, None);
        assert_eq!(facts.devices[0].dma_mask_bits, None);
        assert_eq!(facts.devices[0].iova_ranges, None);
    }

    #[test]
    fn facts_of_a_later_version_pass_unread() {
        let text = with_device("\"class\":\"0x020000\",\"colour\":\"green\"");
        assert!(from_json(&text).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        refused("", Code::HostFactsSyntax, "line 1, column 1");
        refused("{\"schema\":1,\n oops", Code::HostFactsSyntax, "line 2");
        refused("[]", Code::HostFactsValue, "line 1");
        refused(&"[".repeat(100_000), Code::HostFactsValue, "line 1");
    }

    #[test]
    fn another_schema_version_is_refused_before_its_fields_are_looked_at() {
        refused(
            "{\"schema\":2,\"arch\":7}",
            Code::HostFactsVersion,
            "version 2",
        );
        refused(
            "{\"arch\":\"aarch64\"}",
            Code::HostFactsVersion,
            "do not name",
        );
    }

    #[test]
    fn values_that_no_host_has_are_refused_with_their_place() {
        for (field, needle) in [
            ("\"class\":\"0x1000000\"", "line 4, column"),
            ("\"class\":\"020000\"", "not a hexadecimal number"),
            (
                "\"class\":\"0x020000\",\"dma_mask_bits\":0",
                "between 1 and 64",
            ),
            (
                "\"class\":\"0x020000\",\"tdisp_dma_bits\":65",
                "width of 65",
            ),
            (
                "\"class\":\"0x020000\",\"iova_ranges\":[{\"start\":\"0x2\",\"end\":\"0x1\"}]",
                "before its start",
            ),
            (
                "\"class\":\"0x020000\",\"reserved_regions\":\
                 [{\"start\":\"0x2\",\"end\":\"0x1\",\"kind\":\"msi\"}]",
                "before its start",
            ),
        ] {
            refused(&with_device(field), Code::HostFactsValue, needle);
        }
    }

    #[test]
    fn bars_are_those_that_six_registers_can_hold() {
        for (bars, needle) in [
            ("{\"index\":6,\"size\":4096,\"kind\":\"mem32\"}", "BAR 6"),
            ("{\"index\":5,\"size\":4096,\"kind\":\"mem64\"}", "BAR 5"),
            (
                "{\"index\":0,\"size\":4095,\"kind\":\"mem32\"}",
                "power of two",
            ),
            (
                "{\"index\":0,\"size\":0,\"kind\":\"mem32\"}",
                "power of two",
            ),
            ("{\"index\":0,\"size\":2,\"kind\":\"io\"}", "not between"),
            (
                "{\"index\":0,\"size\":8589934592,\"kind\":\"mem32\"}",
                "not between",
            ),
            (
                "{\"index\":0,\"size\":4096,\"kind\":\"mem64\"},\
                 {\"index\":1,\"size\":4096,\"kind\":\"mem32\"}",
                "register 1 is used twice",
            ),
        ] {
            let text = with_device(&format!("\"class\":\"0x020000\",\"bars\":[{bars}]"));
            refused(&text, Code::HostFactsValue, needle);
        }
    }

    #[test]
    fn a_device_that_is_listed_twice_is_refused_where_it_stands_again() {
        let device = "{\"pci\":\"00:04.0\",\"vendor\":\"0x1\",\"device\":\"0x1\",\
                      \"class\":\"0x0\"}";
        let text =
            format!("{{\"schema\":1,\"arch\":\"x86_64\",\"devices\":[\n{device},\n{device}]}}");
        refused(&text, Code::HostFactsValue, "line 3");
    }
}
