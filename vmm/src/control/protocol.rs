//! Requests and responses, version 1.
//!
//! ```text
//! {"version":1,"command":"status"}                            ─► {"version":1,"status":{...}}
//! {"version":1,"command":"start"}                             ─► {"version":1,"error":{"code":"unknown-command",...}}
//! ```
//!
//! A response has one member beside its version: the answer, by the command's name, or `error`. What
//! is unknown is absent, never `null`. Fields may be added to answers under the same version.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::host::facts::{Hex, PciAddress};
use crate::stats::Conversions;

mod answer;
mod metrics;

pub use answer::*;
pub use metrics::{DeviceMetrics, EmulatedMetrics, Metrics, QueueMetrics};

/// The version of the protocol that this ccvm speaks.
pub const VERSION: u32 = 1;

/// A request: one line, with its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Request {
    /// Version of the protocol: 1.
    pub version: u32,
    /// What is asked for.
    #[serde(flatten)]
    pub command: Command,
}

/// A line of the conversation, for its schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a schema is all that is made of it")]
pub(crate) enum Line {
    /// To the VM.
    Request(Request),
    /// From it.
    Response(Response),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "command",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case",
    deny_unknown_fields
)]
pub enum Command {
    /// What the VM is and how it does.
    Status {},
    /// All counters.
    Metrics {},
    /// The assigned devices.
    Devices {},
    /// Page states and DMA tables, by extent.
    Map {
        /// Only the tables of this device: its address on the host or the guest's bus.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// Only what ends above this address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Hex<u64>>,
        /// At most so many extents of each list; 64 when absent, 65536 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Derive every table from scratch, and compare with what is recorded and held.
    Verify {},
    /// Page conversions so far.
    Convert {},
    /// Ask something of a device's interface.
    Tdi {
        /// What.
        action: TdiAction,
        /// Its address on the host or the guest's bus.
        device: String,
    },
    /// Give the VM a device of the host while it runs.
    Plug {
        /// The function of the host.
        device: PciAddress,
        /// The slot that it comes into; the first free one when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u8>,
        /// How many address bits the device drives, when you know better than every other source: 24 to 64.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dma_bits: Option<u8>,
    },
    /// Ask the guest to give up a device that came into a slot.
    Unplug {
        /// Its address on the host or the guest's bus.
        device: String,
        /// Take it out at once, whatever the guest does with it.
        #[serde(default)]
        force: bool,
    },
    /// Hold the vCPUs outside of the guest; DMA of devices goes on.
    Pause {},
    /// Let the vCPUs go on.
    Resume {},
    /// Press the power button: the guest is asked to turn itself off.
    Powerbutton {},
    /// End the VM, as a signal would: the guest is not asked.
    Stop {},
}

/// What can be asked of a device's interface (TDI).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TdiAction {
    /// Lock its configuration.
    Lock,
    /// Accept a device that this socket has locked: it reaches private pages.
    Start,
    /// Take private pages out of its reach, and unlock it.
    Stop,
    /// Tell what the guest would be told of it.
    Report,
}

/// A response: one line, with its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// Version of the protocol: 1.
    pub version: u32,
    /// The answer, or why there is none.
    #[serde(flatten)]
    pub answer: Answer,
}

/// An answer, under the name of its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To `status`.
    Status(Status),
    /// To `metrics`.
    Metrics(Metrics),
    /// To `devices`.
    Devices(Devices),
    /// To `map`.
    Map(MemoryMap),
    /// To `verify`.
    Verify(Verification),
    /// To `convert`.
    Convert(Conversions),
    /// To `tdi`: the interface as it is now.
    Tdi(Interface),
    /// To `plug`: the device is in its slot, and the guest is told.
    Plug(Plugged),
    /// To `unplug`.
    Unplug(Unplugged),
    /// To `pause`: the vCPUs are held.
    Pause(Done),
    /// To `resume`: they go on.
    Resume(Done),
    /// To `powerbutton`: it is pressed; what comes of it is up to the guest.
    Powerbutton(Done),
    /// To `stop`: the VM is about to end.
    Stop(Done),
    /// The command was not carried out.
    Error(Failure),
}

/// A command without an answer of its own was carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What kind of reason, for programs.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: String,
}

/// Kinds of failure. A word is never used for another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The line is not one JSON object, or longer than a request may be.
    Malformed,
    /// The request is of a version that this ccvm does not speak, or of none.
    UnsupportedVersion,
    /// There is no such command.
    UnknownCommand,
    /// The command does not take such a field or value, or lacks one.
    InvalidArgument,
    /// The VM has no such device.
    NoSuchDevice,
    /// The VM, or the device, is not in a state for this.
    WrongState,
    /// The plan of the VM, or the host, does not allow it; the message says why, with the codes of
    /// diagnostics.
    Refused,
    /// It was tried, and failed; the message says what is left.
    Failed,
    /// As many connections are open as may be.
    TooManyConnections,
}

impl Request {
    /// A request of this version.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self {
            version: VERSION,
            command,
        }
    }
}

impl Command {
    /// The names of all commands.
    pub const NAMES: &[&str] = &[
        "status",
        "metrics",
        "devices",
        "map",
        "verify",
        "convert",
        "tdi",
        "plug",
        "unplug",
        "pause",
        "resume",
        "powerbutton",
        "stop",
    ];

    /// The command in a line that somebody has sent.
    ///
    /// # Errors
    /// When it is no request of this version. The first thing that is wrong is told.
    pub fn parse(line: &[u8]) -> Result<Self, Failure> {
        let mut request: Map<String, Value> = serde_json::from_slice(line).map_err(|error| {
            let message = format!("a request is one JSON object on one line: {error}");
            Failure::new(ErrorCode::Malformed, message)
        })?;
        match request.remove("version") {
            Some(Value::Number(version)) if version.as_u64() == Some(VERSION.into()) => {}
            other => {
                let given = other.map_or_else(|| "none".to_owned(), |value| value.to_string());
                let message =
                    format!("this ccvm speaks version {VERSION}, the request has {given}");
                return Err(Failure::new(ErrorCode::UnsupportedVersion, message));
            }
        }
        let name = request.get("command").and_then(Value::as_str);
        if name.is_none_or(|name| !Self::NAMES.contains(&name)) {
            let known = Self::NAMES.join(", ");
            let message = format!("no such command; there are: {known}");
            return Err(Failure::new(ErrorCode::UnknownCommand, message));
        }
        serde_json::from_value(Value::Object(request))
            .map_err(|error| Failure::new(ErrorCode::InvalidArgument, error.to_string()))
    }
}

impl Response {
    /// A response of this version.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self {
            version: VERSION,
            answer,
        }
    }
}

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<Result<Answer, Failure>> for Response {
    fn from(result: Result<Answer, Failure>) -> Self {
        Self::new(result.unwrap_or_else(Answer::Error))
    }
}

#[cfg(test)]
mod tests;
