//! Counters, as an answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RunState;
use crate::emulate::CountedKind;
use crate::host::facts::PciAddress;
use crate::platform::Platform;
use crate::stats::{Conversions, Exits};

/// What there is to count and to measure in a running VM. Counts begin with the run and never fall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// The kind of VM.
    pub platform: Platform,
    /// Whether the guest runs.
    pub state: RunState,
    /// Milliseconds since ccvm was started.
    pub uptime_ms: u64,
    /// Processors.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory: u64,
    /// Resident bytes of the process that are not guest memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_memory_bytes: Option<u64>,
    /// Exits to ccvm, of all vCPUs.
    pub exits: Exits,
    /// Page conversions, and calls to DMA tables.
    pub conversions: Conversions,
    /// Gaps in the kernel's log, where faults are read from it: faults may have been in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_log_gaps: Option<u64>,
    /// The assigned devices, in the order of the config.
    pub devices: Vec<DeviceMetrics>,
    /// The emulated devices whose queues ccvm serves, in the order of the guest's bus.
    #[serde(default)]
    pub emulated: Vec<EmulatedMetrics>,
}

/// What an emulated device has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmulatedMetrics {
    /// Bus, device and function that the guest sees.
    pub guest: String,
    /// What it is.
    pub kind: CountedKind,
    /// Its queues, from the first on.
    pub queues: Vec<QueueMetrics>,
}

/// What a queue of an emulated device has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueMetrics {
    /// Requests, frames or buffers that have gone back to the driver.
    pub requests: u64,
    /// Bytes that those had for the device to read, headers among them.
    pub bytes_from_guest: u64,
    /// Bytes that the device has written to them, headers among them.
    pub bytes_to_guest: u64,
    /// Requests that were answered with an error, and rings that were bad.
    pub errors: u64,
    /// Notifications of the driver.
    pub notifications: u64,
    /// Interrupts that the driver was sent.
    pub interrupts: u64,
}

/// What there is to count and to measure of an assigned device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceMetrics {
    /// The function of the host.
    pub pci: PciAddress,
    /// Bus, device and function that the guest sees.
    pub guest: String,
    /// Mappings that the host holds for its table.
    pub mappings: u64,
    /// Bytes that it reaches.
    pub reach: u64,
    /// Accesses that the host's IOMMU refused, at least.
    pub faults: u64,
    /// Writes of the guest that were kept from it while its interface was locked; absent where it has
    /// no interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<u64>,
    /// How often its interface has been locked; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<u64>,
    /// Whether it has been cut off, because its table no longer follows the guest's memory.
    pub quarantined: bool,
}
