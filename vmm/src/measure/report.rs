//! What `ccvm measure` prints: a document for programs, and a text for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::expected::{Expected, Register};
use crate::boot::segment::SegmentKind;
use crate::check::Check;
use crate::host::facts::Hex;
use crate::platform::Platform;
use crate::report::document::Finding;

/// The version of the document that this ccvm writes.
pub const SCHEMA: u32 = 1;

/// What a verifier should expect of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeasureReport {
    /// Version of this document: 1.
    pub schema: u32,
    /// The kind of VM, once it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The launch measurement, where it can be foretold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurement: Option<MeasurementReport>,
    /// What the operator should know, in the order of the config.
    pub diagnostics: Vec<Finding>,
}

/// A launch measurement, and what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MeasurementReport {
    /// Where the platform holds it.
    pub register: Register,
    /// How it is digested: a name of the IANA registry of named information hash algorithms.
    pub algorithm: String,
    /// The measurement, as lower-case hexadecimal digits.
    pub digest: String,
    /// What is in the guest's memory when it starts, by ascending addresses.
    pub segments: Vec<SegmentReport>,
    /// The kernel's command line, with what ccvm adds. It is measured with the device tree or the boot data; an SNP guest
    /// that is an IGVM file is told it without measurement, and a TD by its firmware, which measures it.
    pub cmdline: String,
}

/// A piece of a guest's initial memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentReport {
    /// What it is.
    pub kind: SegmentKind,
    /// Where its first byte goes.
    pub start: Hex<u64>,
    /// Its length in bytes.
    pub size: u64,
    /// The SHA-256 digest of its content, as lower-case hexadecimal digits.
    pub sha256: String,
}

impl MeasureReport {
    /// The document on a check, and on what was measured of it.
    #[must_use]
    pub fn new(check: &Check, expected: Option<&Expected>) -> Self {
        Self {
            schema: SCHEMA,
            platform: check.outcome.as_ref().map(|outcome| outcome.platform),
            measurement: expected.map(MeasurementReport::new),
            diagnostics: check.findings.iter().flat_map(Finding::all_of).collect(),
        }
    }
}

impl MeasurementReport {
    fn new(expected: &Expected) -> Self {
        let segments = expected.segments.iter().map(|segment| SegmentReport {
            kind: segment.kind,
            start: Hex(segment.start.raw()),
            size: segment.bytes,
            sha256: segment.sha256.to_string(),
        });
        Self {
            register: expected.register,
            algorithm: expected.algorithm.to_owned(),
            digest: expected.digest.to_string(),
            segments: segments.collect(),
            cmdline: expected.cmdline.clone(),
        }
    }

    /// The text, without findings.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!("{}, {}", self.register.title(), self.algorithm),
            self.digest.clone(),
            String::new(),
        ];
        lines.extend(self.segments.iter().map(|segment| {
            let (what, start, size) = (segment.kind.title(), segment.start.0, segment.size);
            format!("{what:<12}  {start:#x}  {size} bytes")
        }));
        lines.push(format!("command line  {}", self.cmdline));
        lines.join("\n") + "\n"
    }
}
