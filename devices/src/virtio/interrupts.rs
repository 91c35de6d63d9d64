//! The MSI-X vectors of an emulated function.
//!
//! ```text
//!   MSI-X off ──────────────► nothing is signalled
//!   on, vector masked ──────► its event is kept, and delivered when it is unmasked
//!   on, vector unmasked ────► its event becomes the message
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::EventFd;

use crate::irq::{MsiController, MsiMessage, MsiVector};
use crate::pci::{Bdf, ConfigSpace, MsixCapability, MsixTable};
use crate::rate_limit::RateLimit;

static FAILURES: RateLimit = RateLimit::per_second(5);

/// A vector and where it goes now.
struct Vector {
    irq: Box<dyn MsiVector>,
    message: Option<MsiMessage>,
}

/// The vectors of a function.
pub(super) struct Interrupts {
    capability: MsixCapability,
    table: MsixTable,
    vectors: Vec<Vector>,
    sender: Arc<Sender>,
}

/// What signals the vectors, from any thread.
pub(super) struct Sender {
    /// Whether the guest has turned MSI-X on.
    on: AtomicBool,
    events: Vec<EventFd>,
}

impl Sender {
    /// The event of a vector, for those who signal it themselves. It is sent while MSI-X is on, and kept
    /// otherwise.
    pub(super) fn event(&self, vector: u16) -> Option<EventFd> {
        let event = self.events.get(usize::from(vector))?;
        // Without a descriptor the driver waits in vain: it polls, or resets the device.
        let clone = event.try_clone();
        clone.inspect_err(|error| warn("share", error)).ok()
    }

    /// Sends a vector's message, if there is one of this number and MSI-X is on.
    pub(super) fn signal(&self, vector: u16) {
        let on = self.on.load(Ordering::SeqCst);
        if let Some(event) = self.events.get(usize::from(vector)).filter(|_| on)
            && let Err(error) = event.write(1)
        {
            warn("send", &error);
        }
    }
}

impl Interrupts {
    /// All masked.
    ///
    /// # Errors
    /// When the host has no more vectors.
    pub(super) fn new(
        capability: MsixCapability,
        controller: &Arc<dyn MsiController>,
        requester: Bdf,
    ) -> io::Result<Self> {
        let vector = |_| {
            let irq = controller.vector(requester)?;
            let message = None;
            Ok(Vector { irq, message })
        };
        let vectors = (0..capability.vectors()).map(vector);
        let vectors = vectors.collect::<io::Result<Vec<_>>>()?;
        let events = vectors.iter().map(|vector| vector.irq.event().try_clone());
        let sender = Sender {
            on: AtomicBool::new(false),
            events: events.collect::<io::Result<_>>()?,
        };
        Ok(Self {
            capability,
            table: MsixTable::new(capability.vectors()),
            vectors,
            sender: Arc::new(sender),
        })
    }

    /// What signals the vectors.
    pub(super) fn sender(&self) -> Arc<Sender> {
        Arc::clone(&self.sender)
    }

    /// `vector` if there is one of this number.
    pub(super) fn valid(&self, vector: u16) -> Option<u16> {
        (vector < self.capability.vectors()).then_some(vector)
    }

    /// Makes the routes follow the registers.
    pub(super) fn apply(&mut self, space: &ConfigSpace) {
        let enabled = self.capability.is_enabled(space);
        self.sender.on.store(enabled, Ordering::SeqCst);
        let on = enabled && !self.capability.is_masked(space);
        let messages = self.table.messages();
        let wanted = messages.into_iter().chain(std::iter::repeat(None));
        for (vector, message) in self.vectors.iter_mut().zip(wanted) {
            let message = message.filter(|_| on);
            if vector.message == message {
                continue;
            }
            match vector.irq.route(message) {
                Ok(()) => vector.message = message,
                Err(error) => warn("route", &error),
            }
        }
    }

    /// Fills `data` with what the guest reads at `offset` of the table.
    pub(super) fn read_table(&self, offset: usize, data: &mut [u8]) {
        self.table.read(offset as u64, data);
    }

    /// Takes what the guest writes at `offset` of the table.
    pub(super) fn write_table(&mut self, offset: usize, data: &[u8], space: &ConfigSpace) {
        self.table.write(offset as u64, data);
        self.apply(space);
    }

    /// Fills `data` with pending bits, from byte `offset` of them on.
    pub(super) fn read_pending(&self, offset: usize, data: &mut [u8]) {
        for (at, data) in (offset..).zip(data) {
            let vectors = self.vectors.iter().skip(at.saturating_mul(8)).take(8);
            let bits = vectors
                .enumerate()
                .filter(|(_, vector)| vector.message.is_none() && vector.irq.is_pending());
            *data = bits.fold(0, |all, (bit, _)| all | 1 << bit);
        }
    }
}

fn warn(what: &str, error: &io::Error) {
    if let Some(skipped) = FAILURES.permit() {
        tracing::warn!(
            skipped,
            "cannot {what} an interrupt of a virtio device: {error}"
        );
    }
}
