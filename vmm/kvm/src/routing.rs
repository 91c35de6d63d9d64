//! The table that tells KVM what to do when an irqfd is signalled: GSI to message or to pin.

use std::collections::BTreeMap;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, kvm_irq_routing_entry,
};

/// GSIs below are pins of the interrupt controller, numbered alike; an arm64 one has 988.
const FIRST_MESSAGE: u32 = 1024;
/// `KVM_MAX_IRQ_ROUTES` (include/linux/kvm_host.h): GSIs are below.
const END: u32 = 4096;

/// What a GSI leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Nothing yet: the GSI is taken.
    Unconnected,
    /// A pin of the interrupt controller.
    Pin(u32),
    /// A message, as written by the device with this requester id.
    Message {
        address: u64,
        data: u32,
        device: u32,
    },
}

/// All GSIs in use.
#[derive(Debug, Default)]
pub(crate) struct Routes(BTreeMap<u32, Route>);

impl Routes {
    /// Takes a GSI for messages, unconnected; `None` when all are taken.
    pub(crate) fn take_message(&mut self) -> Option<u32> {
        let gsi = (FIRST_MESSAGE..END).find(|gsi| !self.0.contains_key(gsi))?;
        self.0.insert(gsi, Route::Unconnected);
        Some(gsi)
    }

    /// Changes what `gsi` leads to; `None` frees it. Returns what it led to.
    pub(crate) fn set(&mut self, gsi: u32, route: Option<Route>) -> Option<Route> {
        match route {
            Some(route) => self.0.insert(gsi, route),
            None => self.0.remove(&gsi),
        }
    }

    /// The whole table as KVM takes it: what is not in it is gone.
    pub(crate) fn entries(&self) -> Vec<kvm_irq_routing_entry> {
        let entry = |(&gsi, route): (&u32, &Route)| entry(gsi, *route);
        self.0.iter().filter_map(entry).collect()
    }
}

fn entry(gsi: u32, route: Route) -> Option<kvm_irq_routing_entry> {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        ..Default::default()
    };
    match route {
        Route::Unconnected => return None,
        Route::Pin(pin) => {
            entry.type_ = KVM_IRQ_ROUTING_IRQCHIP;
            entry.u.irqchip.irqchip = 0;
            entry.u.irqchip.pin = pin;
        }
        Route::Message {
            address,
            data,
            device,
        } => {
            entry.type_ = KVM_IRQ_ROUTING_MSI;
            entry.flags = KVM_MSI_VALID_DEVID;
            let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
            entry.u.msi.address_lo = u32::from_le_bytes([a, b, c, d]);
            entry.u.msi.address_hi = u32::from_le_bytes([e, f, g, h]);
            entry.u.msi.data = data;
            entry.u.msi.__bindgen_anon_1.devid = device;
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_gsis_of_their_own_until_all_are_taken() {
        let mut routes = Routes::default();
        routes.set(7, Some(Route::Pin(7)));
        assert_eq!(routes.take_message(), Some(1024));
        assert_eq!(routes.take_message(), Some(1025));
        routes.set(1024, None);
        assert_eq!(routes.take_message(), Some(1024));
        let rest = std::iter::from_fn(|| routes.take_message()).count();
        assert_eq!(rest, 4096 - 1026);
    }

    #[test]
    fn the_table_holds_what_is_connected() {
        let mut routes = Routes::default();
        routes.set(7, Some(Route::Pin(7)));
        let (first, second) = (routes.take_message(), routes.take_message());
        let message = Route::Message {
            address: 0x8_0808_0040,
            data: 3,
            device: 8,
        };
        routes.set(second.unwrap(), Some(message));
        let entries: Vec<_> = routes
            .entries()
            .iter()
            .map(|entry| (entry.gsi, entry.type_, entry.flags))
            .collect();
        assert_eq!(first, Some(1024));
        assert_eq!(
            entries,
            [
                (7, KVM_IRQ_ROUTING_IRQCHIP, 0),
                (1025, KVM_IRQ_ROUTING_MSI, 1)
            ]
        );
    }
}
