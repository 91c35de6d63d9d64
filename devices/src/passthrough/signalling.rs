//! Which interrupts of the device are on, and where they go.
//!
//! ```text
//!  INTx disabled ┌──────┐ MSI on    ┌──────┐      one row each: MSI-X on wins over MSI on,
//!  or no pin ┌──>│ none │──────────>│ MSI  │      which wins over a pin that is not disabled;
//!            │   └──────┘           └──────┘      every change of row silences the device first
//!            │       ^                  ^
//!            v       v                  v
//!        ┌──────────────┐ MSI-X on  ┌───────┐  a vector is masked: unrouted, its event is kept
//!        │ INTx         │──────────>│ MSI-X │  a vector is unmasked: routed, kept event delivered
//!        └──────────────┘           └───────┘  a further vector is programmed: added
//! ```

use std::io;
use std::sync::Arc;

use super::physical::{PhysicalFunction, Signals};
use crate::irq::{IntxLine, MsiController, MsiMessage, MsiVector};
use crate::pci::Bdf;
use crate::rate_limit::RateLimit;

static FAILURES: RateLimit = RateLimit::per_second(5);

/// What the registers ask for. Vectors without a message are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing.
    Nothing,
    /// The pin.
    Intx,
    /// MSI, with the message of each vector.
    Msi(Vec<Option<MsiMessage>>),
    /// MSI-X, with the message of each vector that is in use.
    Msix(Vec<Option<MsiMessage>>),
}

impl Wanted {
    fn row(&self) -> Row {
        match self {
            Self::Nothing => Row::Nothing,
            Self::Intx => Row::Intx,
            Self::Msi(_) => Row::Msi,
            Self::Msix(_) => Row::Msix,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Nothing,
    Intx,
    Msi,
    Msix,
}

/// A message vector and where it goes now.
struct Vector {
    irq: Box<dyn MsiVector>,
    message: Option<MsiMessage>,
}

/// The interrupts of one function.
pub(super) struct Signalling {
    controller: Arc<dyn MsiController>,
    requester: Bdf,
    pin: Option<Box<dyn IntxLine>>,
    row: Row,
    vectors: Vec<Vector>,
}

impl Signalling {
    /// Nothing is on.
    pub(super) fn new(
        controller: Arc<dyn MsiController>,
        requester: Bdf,
        pin: Option<Box<dyn IntxLine>>,
    ) -> Self {
        Self {
            controller,
            requester,
            pin,
            row: Row::Nothing,
            vectors: Vec::new(),
        }
    }

    /// Whether there is a wire behind the pin.
    pub(super) fn has_pin(&self) -> bool {
        self.pin.is_some()
    }

    /// Makes it so. After a failure nothing is on, and the next call tries again.
    pub(super) fn apply(&mut self, wanted: &Wanted, physical: &mut dyn PhysicalFunction) {
        if self.row != wanted.row() {
            self.silence(physical);
        }
        let result = match wanted {
            Wanted::Nothing => Ok(()),
            Wanted::Intx => self.signal_pin(physical),
            Wanted::Msi(messages) => {
                // The number of MSI vectors is that at the time of enabling.
                if self.row == Row::Msi && messages.len() != self.vectors.len() {
                    self.silence(physical);
                }
                self.signal_vectors(messages, Row::Msi, physical)
            }
            Wanted::Msix(messages) => self.signal_vectors(messages, Row::Msix, physical),
        };
        if let Err(error) = result {
            if let Some(skipped) = FAILURES.permit() {
                let function = self.requester;
                tracing::warn!(%function, skipped, "no interrupts: {error}");
            }
            self.silence(physical);
        }
    }

    /// Turns everything off and forgets pending interrupts.
    pub(super) fn silence(&mut self, physical: &mut dyn PhysicalFunction) {
        if self.row == Row::Nothing && self.vectors.is_empty() {
            return;
        }
        if let Err(error) = physical.silence()
            && let Some(skipped) = FAILURES.permit()
        {
            let function = self.requester;
            tracing::warn!(%function, skipped, "cannot turn interrupts off: {error}");
        }
        self.vectors.clear();
        self.row = Row::Nothing;
    }

    /// Whether an interrupt waits for this vector to be unmasked.
    pub(super) fn is_pending(&self, vector: usize) -> bool {
        self.vectors
            .get(vector)
            .is_some_and(|vector| vector.message.is_none() && vector.irq.is_pending())
    }

    fn signal_pin(&mut self, physical: &mut dyn PhysicalFunction) -> io::Result<()> {
        if self.row == Row::Intx {
            return Ok(());
        }
        if let Some(pin) = &self.pin {
            physical.signal(Signals::Intx {
                trigger: pin.trigger(),
                resample: pin.resample(),
            })?;
            self.row = Row::Intx;
        }
        Ok(())
    }

    fn signal_vectors(
        &mut self,
        messages: &[Option<MsiMessage>],
        row: Row,
        physical: &mut dyn PhysicalFunction,
    ) -> io::Result<()> {
        let before = self.vectors.len();
        while self.vectors.len() < messages.len() {
            self.vectors.push(Vector {
                irq: self.controller.vector(self.requester)?,
                message: None,
            });
        }
        // Beyond `messages` the guest has put vectors back to their reset state: masked.
        let wanted = messages.iter().copied().chain(std::iter::repeat(None));
        for (vector, message) in self.vectors.iter_mut().zip(wanted) {
            if vector.message != message {
                vector.irq.route(message)?;
                vector.message = message;
            }
        }
        if self.row != row || self.vectors.len() > before {
            let events: Vec<_> = self
                .vectors
                .iter()
                .map(|vector| vector.irq.event())
                .collect();
            physical.signal(match row {
                Row::Msi => Signals::Msi(&events),
                _ => Signals::Msix(&events),
            })?;
            self.row = row;
        }
        Ok(())
    }
}
