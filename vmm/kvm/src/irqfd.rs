//! Interrupts that reach the guest without a word from this process: KVM's irqfd.
//!
//! ```text
//!   device ─► VFIO ─► eventfd ─► irqfd ─► GSI ─► message to the ITS, or pin of the GIC
//!                     (kept while disconnected)
//! ```

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostcall::gate;
use kvm_bindings::KvmIrqRouting;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::error::ioctl;
use crate::routing::{Route, Routes};
use crate::{Error, Vm, VmKind};

/// Connects and disconnects events, by its name in the kernel.
const IRQFD: &str = "KVM_IRQFD";

/// The interrupt routes of one VM, whose interrupt controller exists. Clones are handles to the same
/// ones. KVM has one table for all: nothing else may set it.
#[derive(Clone)]
pub struct IrqRouter(Arc<Inner>);

struct Inner {
    vm: Vm,
    /// What KVM's ITS has set in its address and the guest's messages have not.
    shared_bit: u64,
    routes: Mutex<Routes>,
}

impl IrqRouter {
    /// The routes of `vm`, which has none so far. `shared_bit` is the bit that is set in the address
    /// where KVM has the ITS, if the platform has one.
    #[must_use]
    pub fn new(vm: Vm, shared_bit: Option<u8>) -> Self {
        // A TD's inputs are those of an IOAPIC outside of KVM, which takes no routes to others.
        let routes = match vm.kind() {
            VmKind::Td => Routes::without_pins(),
            _ => Routes::default(),
        };
        Self(Arc::new(Inner {
            vm,
            shared_bit: shared_bit.map_or(0, |bit| 1 << (bit & 63)),
            routes: Mutex::new(routes),
        }))
    }

    /// A new event, disconnected, whose messages carry the requester id `device`.
    ///
    /// # Errors
    /// When the process has no more descriptors, or KVM no more routes.
    pub fn message(&self, device: u32) -> Result<MessageIrq, Error> {
        let event = new_event()?;
        let gsi = self.0.routes().take_message();
        let gsi = gsi.ok_or(Error::Missing("route left for a message interrupt"))?;
        Ok(MessageIrq {
            router: self.clone(),
            event,
            gsi,
            device,
            connected: false,
        })
    }

    /// Connects a new pair of events to the input `pin` of the interrupt controller (arm64: an SPI,
    /// counted from 0), which must be level-triggered and may be shared.
    ///
    /// # Errors
    /// When the process has no more descriptors, or the line is in use.
    pub fn line(&self, pin: u32) -> Result<LineIrq, Error> {
        let (trigger, resample) = (new_event()?, new_event()?);
        self.0.set(pin, Some(Route::Pin(pin)))?;
        let vm = self.0.vm.fd();
        ioctl(IRQFD, "connect an event to an interrupt line", || {
            vm.register_irqfd_with_resample(&trigger, &resample, pin)
        })?;
        Ok(LineIrq {
            router: self.clone(),
            trigger,
            resample,
            pin,
        })
    }
}

impl Inner {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        // Each change is one insertion or removal, so that the table is right after a panic.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a route and tells KVM; a change that KVM refuses is undone.
    fn set(&self, gsi: u32, route: Option<Route>) -> Result<(), Error> {
        let mut routes = self.routes();
        let before = routes.set(gsi, route);
        let result = self.install(&routes);
        if result.is_err() {
            routes.set(gsi, before);
        }
        result
    }

    fn install(&self, routes: &Routes) -> Result<(), Error> {
        // At most `KVM_MAX_IRQ_ROUTES` entries: one for each GSI.
        let table = KvmIrqRouting::from_entries(&routes.entries())
            .map_err(|_| Error::Missing("room for an interrupt route"))?;
        ioctl("KVM_SET_GSI_ROUTING", "set interrupt routes", || {
            self.vm.fd().set_gsi_routing(&table)
        })
    }
}

fn new_event() -> Result<EventFd, Error> {
    let made = gate("eventfd").and_then(|()| EventFd::new(EFD_NONBLOCK));
    made.map_err(|source| Error::Ioctl {
        operation: "have an event",
        call: "eventfd",
        source,
    })
}

/// An event that sends a message when it is signalled and connected.
pub struct MessageIrq {
    router: IrqRouter,
    event: EventFd,
    gsi: u32,
    device: u32,
    connected: bool,
}

impl MessageIrq {
    /// The event.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Has the event send `data` to `address`, without the shared bit. If it was signalled while
    /// disconnected, it does so now.
    ///
    /// # Errors
    /// When KVM refuses; the event then goes where it went before.
    pub fn connect(&mut self, address: u64, data: u32) -> Result<(), Error> {
        let inner = &self.router.0;
        let message = Route::Message {
            address: address | inner.shared_bit,
            data,
            device: self.device,
        };
        inner.set(self.gsi, Some(message))?;
        if !self.connected {
            ioctl(IRQFD, "connect an event to a message interrupt", || {
                inner.vm.fd().register_irqfd(&self.event, self.gsi)
            })?;
            self.connected = true;
        }
        Ok(())
    }

    /// Has the event keep its signals. A message on its way has arrived when this returns.
    ///
    /// # Errors
    /// When KVM refuses; the event is then still connected.
    pub fn disconnect(&mut self) -> Result<(), Error> {
        if self.connected {
            let vm = &self.router.0.vm;
            ioctl(IRQFD, "disconnect a message interrupt", || {
                vm.fd().unregister_irqfd(&self.event, self.gsi)
            })?;
            self.connected = false;
        }
        Ok(())
    }

    /// Whether the event was signalled while disconnected.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        // Reading takes the count; it is put back for the next connection.
        match self.event.read() {
            Ok(count) => self.event.write(count).is_ok(),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Drop for MessageIrq {
    fn drop(&mut self) {
        if let Err(error) = self.disconnect() {
            tracing::warn!("{error}");
        }
        self.router.0.routes().set(self.gsi, None);
    }
}

/// An interrupt line that an event drives high, and that tells when the guest has ended the
/// interrupt.
pub struct LineIrq {
    router: IrqRouter,
    trigger: EventFd,
    resample: EventFd,
    pin: u32,
}

impl LineIrq {
    /// Drives the line high when signalled, until the guest ends the interrupt.
    #[must_use]
    pub fn trigger(&self) -> &EventFd {
        &self.trigger
    }

    /// Signalled when the guest has ended the interrupt.
    #[must_use]
    pub fn resample(&self) -> &EventFd {
        &self.resample
    }
}

impl Drop for LineIrq {
    fn drop(&mut self) {
        let vm = self.router.0.vm.fd();
        let removed = ioctl(IRQFD, "disconnect an interrupt line", || {
            vm.unregister_irqfd(&self.trigger, self.pin)
        });
        if let Err(error) = removed {
            tracing::warn!("interrupt line {}: {error}", self.pin);
        }
        // The route stays: other functions may share the line.
    }
}
