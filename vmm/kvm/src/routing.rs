//! The table that tells KVM what to do when an irqfd is signalled: GSI to message or to pin.

use std::collections::BTreeMap;

use kvm_bindings::{KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, kvm_irq_routing_entry};

use crate::arch::routing::{FIRST_MESSAGE, IRQCHIP, MESSAGE_FLAGS, PINS};

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
#[derive(Debug)]
pub(crate) struct Routes(BTreeMap<u32, Route>);

impl Default for Routes {
    /// Those that KVM has as well before it is given a table.
    fn default() -> Self {
        Self((0..PINS).map(|pin| (pin, Route::Pin(pin))).collect())
    }
}

impl Routes {
    /// None: for a VM without interrupt lines in KVM.
    pub(crate) fn without_pins() -> Self {
        Self(BTreeMap::new())
    }

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
            entry.u.irqchip.irqchip = IRQCHIP;
            entry.u.irqchip.pin = pin;
        }
        Route::Message {
            address,
            data,
            device,
        } => {
            entry.type_ = KVM_IRQ_ROUTING_MSI;
            entry.flags = MESSAGE_FLAGS;
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

    /// No routes but one, from pin 7.
    fn one_pin() -> Routes {
        Routes(BTreeMap::from([(7, Route::Pin(7))]))
    }

    #[test]
    fn messages_have_gsis_of_their_own_until_all_are_taken() {
        let mut routes = one_pin();
        assert_eq!(routes.take_message(), Some(FIRST_MESSAGE));
        assert_eq!(routes.take_message(), Some(FIRST_MESSAGE + 1));
        routes.set(FIRST_MESSAGE, None);
        assert_eq!(routes.take_message(), Some(FIRST_MESSAGE));
        let rest = std::iter::from_fn(|| routes.take_message()).count();
        assert_eq!(rest, (END - FIRST_MESSAGE) as usize - 2);
    }

    #[test]
    fn the_table_holds_what_is_connected() {
        let mut routes = one_pin();
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
        assert_eq!(first, Some(FIRST_MESSAGE));
        assert_eq!(
            entries,
            [
                (7, KVM_IRQ_ROUTING_IRQCHIP, 0),
                (FIRST_MESSAGE + 1, KVM_IRQ_ROUTING_MSI, MESSAGE_FLAGS)
            ]
        );
    }

    #[test]
    fn pins_that_kvm_routes_from_the_start_stay_routed() {
        let entries = Routes::default().entries();
        let pins: Vec<u32> = entries.iter().map(|entry| entry.gsi).collect();
        assert_eq!(pins, (0..PINS).collect::<Vec<_>>());
    }
}
