//! Emulated devices, for whoever asks what they have done.

use devices::pci::Bdf;
use devices::virtio::QueueCounters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an emulated device is whose rings ccvm serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CountedKind {
    /// A disk.
    Disk,
    /// A network interface.
    Net,
    /// A source of random numbers.
    Rng,
    /// A console.
    Console,
}

impl CountedKind {
    /// As in the control protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Net => "net",
            Self::Rng => "rng",
            Self::Console => "console",
        }
    }
}

/// An emulated device and the counters of its queues, in their order. What others serve is not counted.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Where the guest sees it.
    pub guest: Bdf,
    /// What it is.
    pub kind: CountedKind,
    /// Its queues.
    pub queues: Vec<QueueCounters>,
}
