//! Counters in the text format of Prometheus, version 0.0.4.
//!
//! Names follow its conventions: base units, `_total` for what only rises, one family for what differs
//! in a label. They are as stable as the control protocol.

use std::fmt::{Display, Write as _};

use vmm::control::protocol::{DeviceMetrics, EmulatedMetrics, Metrics, QueueMetrics, RunState};

/// Bytes of a page that conversions count in.
const PAGE_BYTES: u64 = 4096;

/// What a family of samples is.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text, family by family.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP ccvm_{name} {help}");
        let _ = writeln!(self.0, "# TYPE ccvm_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "ccvm_{name}{labels} {value}");
        }
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help, [(String::new(), value)]);
    }
}

/// `{name="value",...}`, for values without anything to escape.
fn labels<const N: usize>(labels: [(&str, &dyn Display); N]) -> String {
    let pairs = labels.map(|(name, value)| format!("{name}=\"{value}\""));
    format!("{{{}}}", pairs.join(","))
}

/// Counters as text.
pub(super) fn of(metrics: &Metrics) -> String {
    let mut text = Text::default();
    vm(&mut text, metrics);
    exits(&mut text, metrics);
    conversions(&mut text, metrics);
    devices(&mut text, &metrics.devices);
    emulated(&mut text, &metrics.emulated);
    if let Some(gaps) = metrics.fault_log_gaps {
        let help = "Gaps in the kernel's log, in which faults may have been";
        text.one("fault_log_gaps_total", Kind::Counter, help, gaps);
    }
    text.0
}

fn vm(text: &mut Text, metrics: &Metrics) {
    let info = labels([("platform", &metrics.platform)]);
    let help = "The kind of VM; always 1";
    text.family("vm_info", Kind::Gauge, help, [(info, 1)]);
    let (seconds, millis) = (metrics.uptime_ms / 1000, metrics.uptime_ms % 1000);
    let uptime = format!("{seconds}.{millis:03}");
    let help = "Time since ccvm was started";
    text.one("uptime_seconds", Kind::Gauge, help, uptime);
    let paused = u8::from(metrics.state == RunState::Paused);
    let help = "Whether the vCPUs are held";
    text.one("paused", Kind::Gauge, help, paused);
    text.one("vcpus", Kind::Gauge, "Processors", metrics.vcpus);
    let help = "Guest memory";
    text.one("memory_bytes", Kind::Gauge, help, metrics.memory);
    let help = "Resident memory of the process that is not guest memory";
    let own = metrics.own_memory_bytes.map(|bytes| (String::new(), bytes));
    text.family("own_memory_bytes", Kind::Gauge, help, own);
}

fn exits(text: &mut Text, metrics: &Metrics) {
    let exits = &metrics.exits;
    let kinds = [
        ("mmio_read", exits.mmio_read),
        ("mmio_write", exits.mmio_write),
        ("port_read", exits.port_read),
        ("port_write", exits.port_write),
        ("hypercall", exits.hypercall),
        ("memory_fault", exits.memory_fault),
        ("interrupted", exits.interrupted),
        ("other", exits.other),
    ];
    let samples = kinds.map(|(kind, count)| (labels([("kind", &kind)]), count));
    let help = "Exits of vCPUs to ccvm";
    text.family("exits_total", Kind::Counter, help, samples);
    let help = "Accesses of the guest where nothing answers";
    let unclaimed = exits.unclaimed;
    text.one("unclaimed_accesses_total", Kind::Counter, help, unclaimed);
}

fn conversions(text: &mut Text, metrics: &Metrics) {
    let done = &metrics.conversions;
    let to = |state: &str| labels([("to", &state)]);
    let extents = [
        (to("shared"), done.shared_extents),
        (to("private"), done.private_extents),
    ];
    let help = "Contiguous ranges of pages that were converted";
    text.family("converted_extents_total", Kind::Counter, help, extents);
    let bytes = [
        (to("shared"), done.shared_pages.saturating_mul(PAGE_BYTES)),
        (to("private"), done.private_pages.saturating_mul(PAGE_BYTES)),
    ];
    let help = "Guest memory that was converted";
    text.family("converted_bytes_total", Kind::Counter, help, bytes);
    let failed = [
        (labels([("left", &"unchanged")]), done.refused),
        (labels([("left", &"damaged")]), done.damaged),
    ];
    let help = "Conversions that failed, by what they left";
    text.family("failed_conversions_total", Kind::Counter, help, failed);
    let calls = [
        (labels([("call", &"map")]), done.dma_maps),
        (labels([("call", &"unmap")]), done.dma_unmaps),
    ];
    let help = "Mappings made in DMA tables and taken out of them";
    text.family("dma_table_calls_total", Kind::Counter, help, calls);
}

fn devices(text: &mut Text, devices: &[DeviceMetrics]) {
    let mut family =
        |name: &str, kind, help: &str, value: &dyn Fn(&DeviceMetrics) -> Option<u64>| {
            let samples = devices.iter().filter_map(|device| {
                let names = labels([("device", &device.pci), ("guest", &device.guest)]);
                Some((names, value(device)?))
            });
            text.family(name, kind, help, samples);
        };
    let help = "Mappings that the host holds for the device's table";
    let mappings = |device: &DeviceMetrics| Some(device.mappings);
    family("device_mappings", Kind::Gauge, help, &mappings);
    let help = "Memory that the device reaches";
    let reach = |device: &DeviceMetrics| Some(device.reach);
    family("device_reach_bytes", Kind::Gauge, help, &reach);
    let help = "Accesses that the host's IOMMU refused, at least";
    let faults = |device: &DeviceMetrics| Some(device.faults);
    family("device_faults_total", Kind::Counter, help, &faults);
    let help = "Writes of the guest that were kept from a locked device";
    let withheld = |device: &DeviceMetrics| device.withheld;
    family(
        "device_withheld_writes_total",
        Kind::Counter,
        help,
        &withheld,
    );
    let help = "How often the device's interface was locked";
    let locks = |device: &DeviceMetrics| device.locks;
    family("device_locks_total", Kind::Counter, help, &locks);
    let help = "Whether the device has been cut off";
    let quarantined = |device: &DeviceMetrics| Some(u64::from(device.quarantined));
    family("device_quarantined", Kind::Gauge, help, &quarantined);
}

fn emulated(text: &mut Text, devices: &[EmulatedMetrics]) {
    let queues: Vec<_> = devices
        .iter()
        .flat_map(|device| {
            device
                .queues
                .iter()
                .enumerate()
                .map(move |queue| (device, queue))
        })
        .collect();
    let mut family = |name: &str, help: &str, value: fn(&QueueMetrics) -> u64| {
        let samples = queues.iter().map(|(device, (index, queue))| {
            let names = labels([
                ("guest", &device.guest),
                ("kind", &device.kind.name()),
                ("queue", index),
            ]);
            (names, value(queue))
        });
        text.family(name, Kind::Counter, help, samples);
    };
    let help = "Requests, frames or buffers that went back to the driver";
    family("virtio_requests_total", help, |queue| queue.requests);
    let help = "Bytes that requests had for the device to read";
    family("virtio_from_guest_bytes_total", help, |queue| {
        queue.bytes_from_guest
    });
    let help = "Bytes that the device has written to requests";
    family("virtio_to_guest_bytes_total", help, |queue| {
        queue.bytes_to_guest
    });
    let help = "Requests that were answered with an error, and rings that were bad";
    family("virtio_errors_total", help, |queue| queue.errors);
    let help = "Notifications of the driver";
    family("virtio_notifications_total", help, |queue| {
        queue.notifications
    });
    let help = "Interrupts that the driver was sent";
    family("virtio_interrupts_total", help, |queue| queue.interrupts);
}
