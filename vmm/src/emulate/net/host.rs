//! What the guest's driver changes about the tap.

use std::sync::atomic::Ordering;

use devices::rate_limit::RateLimit;
use devices::virtio::net::{NetHost, feature};
use kvm::tap::{Offloads, QueueUse};
use vmm_sys_util::eventfd::EventFd;

use super::Port;

static REFUSED: RateLimit = RateLimit::per_second(1);

/// The tap as the function sees it.
pub(in crate::emulate) struct TapHost {
    ports: Vec<Port>,
    /// One for each ring of frames, which wakes the pump that serves it.
    events: Vec<EventFd>,
}

impl TapHost {
    /// The tap of these ports, of which the host uses the first only from now on. `events` are those of
    /// the rings of frames, in order.
    pub(super) fn new(ports: Vec<Port>, events: Vec<EventFd>) -> Self {
        let host = Self { ports, events };
        host.use_first(1);
        host
    }

    /// Has the host send frames by the first `pairs` queues. Returns whether it does.
    fn use_first(&self, pairs: usize) -> bool {
        // A tap of one queue has nothing to turn on or off.
        if self.ports.len() == 1 {
            return pairs == 1;
        }
        let mut whole = true;
        for (index, port) in self.ports.iter().enumerate() {
            let wanted = index < pairs;
            if port.is_used() == wanted {
                continue;
            }
            let queue = match wanted {
                true => QueueUse::Used,
                false => QueueUse::Unused,
            };
            match port.tap.set_use(queue) {
                Ok(()) => port.used.store(wanted, Ordering::SeqCst),
                Err(error) => {
                    whole = false;
                    complain(port, "turn a queue on or off", &error);
                }
            }
        }
        whole
    }

    fn set_offloads(&self, offloads: Offloads) {
        if let Some(port) = self.ports.first()
            && let Err(error) = port.tap.set_offloads(offloads)
        {
            // What the host then sends and the driver does not take is dropped on the way.
            complain(port, "set offloads", &error);
        }
    }
}

impl NetHost for TapHost {
    fn start(&mut self, features: u64) {
        let wanted = [
            (feature::GUEST_CSUM, Offloads::CHECKSUM),
            (feature::GUEST_TSO4, Offloads::TSO4),
            (feature::GUEST_TSO6, Offloads::TSO6),
        ];
        let wanted = wanted.into_iter().filter(|(bit, _)| features & bit != 0);
        self.set_offloads(wanted.map(|(_, offload)| offload).collect());
    }

    fn set_pairs(&mut self, pairs: u16) -> bool {
        let whole = self.use_first(pairs.into());
        for ring in 0..self.events.len() {
            self.wake(ring);
        }
        whole
    }

    fn wake(&mut self, ring: usize) {
        if let Some(event) = self.events.get(ring) {
            // An eventfd refuses only when its count is at the limit: then it is signalled anyway.
            let _ = event.write(1);
        }
    }

    fn stop(&mut self) {
        self.use_first(1);
        self.set_offloads(Offloads::empty());
    }
}

fn complain(port: &Port, what: &str, error: &std::io::Error) {
    if let Some(skipped) = REFUSED.permit() {
        let name = port.tap.name();
        tracing::warn!(%name, skipped, "the host does not {what}: {error}");
    }
}
