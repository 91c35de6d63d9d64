//! The end of an emulated device.

use devices::virtio::{DeviceMemory, QueueCounters, VirtioDevice, VirtioPci};

/// A function that can be told to use guest memory no more.
pub(super) trait Stop: Send {
    /// Completes what has been begun, and begins nothing any more.
    fn stop(&mut self);

    /// Tells the driver that nothing serves the device any more.
    fn abandon(&self);

    /// The counters of its queues.
    fn counters(&self) -> Vec<QueueCounters>;
}

impl<D: VirtioDevice, M: DeviceMemory> Stop for VirtioPci<D, M> {
    fn stop(&mut self) {
        self.shut_down();
    }

    fn abandon(&self) {
        VirtioPci::abandon(self);
    }

    fn counters(&self) -> Vec<QueueCounters> {
        let rings = self.rings();
        rings.iter().map(|ring| ring.counters().clone()).collect()
    }
}
