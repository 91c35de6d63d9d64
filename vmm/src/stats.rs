//! What a run has cost: counted while it runs, written as JSON when it ends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use iommu::Statistics;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the document that [`Report`] is.
pub const SCHEMA: u32 = 1;

/// How often something has happened.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more time.
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Exits of all vCPUs, by kind.
#[derive(Debug, Default)]
pub struct ExitCounters {
    /// Loads from devices.
    pub mmio_read: Counter,
    /// Stores to devices.
    pub mmio_write: Counter,
    /// Reads of I/O ports.
    pub port_read: Counter,
    /// Writes to I/O ports.
    pub port_write: Counter,
    /// Accesses where nothing answers; also among the four above.
    pub unclaimed: Counter,
    /// Calls of the platform's interface.
    pub hypercall: Counter,
    /// Accesses to memory that is not there for the guest.
    pub memory_fault: Counter,
    /// Kicks and signals.
    pub interrupted: Counter,
    /// Everything else.
    pub other: Counter,
}

impl ExitCounters {
    /// How often each has happened so far.
    #[must_use]
    pub fn read(&self) -> Exits {
        Exits {
            mmio_read: self.mmio_read.get(),
            mmio_write: self.mmio_write.get(),
            port_read: self.port_read.get(),
            port_write: self.port_write.get(),
            unclaimed: self.unclaimed.get(),
            hypercall: self.hypercall.get(),
            memory_fault: self.memory_fault.get(),
            interrupted: self.interrupted.get(),
            other: self.other.get(),
        }
    }
}

/// The counters of one run.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    first_run: OnceLock<Instant>,
    /// Exits to ccvm.
    pub exits: ExitCounters,
}

impl Stats {
    /// Of a process that began at `started`.
    #[must_use]
    pub fn since(started: Instant) -> Self {
        Self {
            started,
            first_run: OnceLock::new(),
            exits: ExitCounters::default(),
        }
    }

    /// How long the process has run.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The first vCPU is about to enter the guest.
    pub fn enter_guest(&self) {
        self.first_run.get_or_init(Instant::now);
    }

    /// Everything so far, for a run that has ended as `ending` says.
    #[must_use]
    pub fn report(&self, ending: &'static str, own_memory_bytes: Option<u64>) -> Report {
        let first_run = self.first_run.get();
        let micros = |since: Instant, until: Instant| {
            u64::try_from(until.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
        };
        Report {
            schema: SCHEMA,
            ending,
            exec_to_first_run_us: first_run.map(|first| micros(self.started, *first)),
            run_us: first_run.map(|first| micros(*first, Instant::now())),
            own_memory_bytes,
            exits: self.exits.read(),
            conversions: None,
        }
    }
}

/// What `ccvm run --stats` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// Version of this document: 1.
    pub schema: u32,
    /// How the run ended: `poweroff`, `reboot`, `crash`, `quit`, `stopped`, `signal` or `failed`.
    pub ending: &'static str,
    /// Microseconds from the first line of `main` until the first vCPU entered the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_to_first_run_us: Option<u64>,
    /// Microseconds from there until the VM had stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_us: Option<u64>,
    /// Resident bytes of the process at the end that are not guest memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_memory_bytes: Option<u64>,
    /// Exits to ccvm, of all vCPUs.
    pub exits: Exits,
    /// Page conversions and what they cost, where pages can be converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversions: Option<Conversions>,
}

/// Exits by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Exits {
    /// Loads from devices.
    pub mmio_read: u64,
    /// Stores to devices.
    pub mmio_write: u64,
    /// Reads of I/O ports (x86).
    pub port_read: u64,
    /// Writes to I/O ports (x86).
    pub port_write: u64,
    /// Accesses where nothing answers; also among the four above.
    pub unclaimed: u64,
    /// Calls of the platform's interface.
    pub hypercall: u64,
    /// Accesses to memory that is not there for the guest.
    pub memory_fault: u64,
    /// Kicks and signals.
    pub interrupted: u64,
    /// Everything else.
    pub other: u64,
}

/// Page conversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conversions {
    /// Contiguous ranges that were made shared.
    pub shared_extents: u64,
    /// Pages of 4 KiB that were made shared.
    pub shared_pages: u64,
    /// Contiguous ranges that were made private.
    pub private_extents: u64,
    /// Pages of 4 KiB that were made private.
    pub private_pages: u64,
    /// Conversions that failed and left everything as it was.
    pub refused: u64,
    /// Conversions that failed and put pages or devices out of use.
    pub damaged: u64,
    /// Mappings made in DMA tables.
    pub dma_maps: u64,
    /// Mappings taken out of DMA tables.
    pub dma_unmaps: u64,
}

impl From<Statistics> for Conversions {
    fn from(statistics: Statistics) -> Self {
        Self {
            shared_extents: statistics.to_shared.extents,
            shared_pages: statistics.to_shared.pages,
            private_extents: statistics.to_private.extents,
            private_pages: statistics.to_private.pages,
            refused: statistics.refused,
            damaged: statistics.damaged,
            dma_maps: statistics.calls.map,
            dma_unmaps: statistics.calls.unmap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_never_entered_the_guest_has_no_times() {
        let stats = Stats::since(Instant::now());
        stats.exits.mmio_read.add_one();
        let json = serde_json::to_value(stats.report("failed", None)).unwrap();
        assert_eq!(json["exits"]["mmio_read"], 1);
        assert_eq!(json["ending"], "failed");
        assert!(json.get("exec_to_first_run_us").is_none());
    }

    #[test]
    fn the_first_entry_counts() {
        let stats = Stats::since(Instant::now());
        stats.enter_guest();
        let first = stats.report("poweroff", Some(1)).exec_to_first_run_us;
        stats.enter_guest();
        assert_eq!(
            stats.report("poweroff", Some(1)).exec_to_first_run_us,
            first
        );
        assert!(first.is_some());
    }
}
