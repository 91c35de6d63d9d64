//! The counters of a running VM, as an answer.

use devices::virtio::QueueCounts;

use super::controlled::{Controlled, millis};
use super::protocol::{
    DeviceMetrics, DeviceStatus, EmulatedMetrics, Failure, Metrics, QueueMetrics, TableHealth,
};
use crate::emulate::Counted;
use crate::own_memory::own_memory;

impl Controlled {
    /// All counters, each as it is at some moment of the answer.
    pub(super) fn metrics(&self) -> Result<Metrics, Failure> {
        let devices = self.list_devices()?.list;
        Ok(Metrics {
            platform: self.plan.platform(),
            state: self.state(),
            uptime_ms: millis(self.stats.uptime()),
            vcpus: self.plan.vcpus(),
            memory: self.plan.memory(),
            own_memory_bytes: own_memory(self.pages.ram()),
            exits: self.stats.exits.read(),
            conversions: self.pages.statistics().into(),
            fault_log_gaps: (!devices.is_empty()).then(|| self.faults.hearing().lost),
            devices: devices.into_iter().map(DeviceMetrics::from).collect(),
            emulated: self.emulated.iter().map(EmulatedMetrics::from).collect(),
        })
    }
}

impl From<&Counted> for EmulatedMetrics {
    fn from(device: &Counted) -> Self {
        let queues = device.queues.iter().map(|queue| queue.read().into());
        Self {
            guest: device.guest.to_string(),
            kind: device.kind,
            queues: queues.collect(),
        }
    }
}

impl From<QueueCounts> for QueueMetrics {
    fn from(counts: QueueCounts) -> Self {
        Self {
            requests: counts.requests,
            bytes_from_guest: counts.bytes_from_guest,
            bytes_to_guest: counts.bytes_to_guest,
            errors: counts.errors,
            notifications: counts.notifications,
            interrupts: counts.interrupts,
        }
    }
}

impl From<DeviceStatus> for DeviceMetrics {
    fn from(device: DeviceStatus) -> Self {
        let interface = device.interface.as_ref();
        Self {
            pci: device.pci,
            guest: device.guest,
            mappings: device.mappings,
            reach: device.reach,
            faults: device.faults,
            withheld: interface.map(|interface| interface.withheld),
            locks: interface.map(|interface| interface.locks),
            quarantined: device.health == TableHealth::Quarantined,
        }
    }
}
