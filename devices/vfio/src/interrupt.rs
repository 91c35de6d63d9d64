//! Interrupts of a function as events: INTx, MSI and MSI-X.
//!
//! ```text
//!            set(Intx) ┌──────┐
//!       ┌─────────────>│ INTx │──┐
//!       │              └──────┘  │ clear
//!    ┌─────┐ set(Msi)  ┌──────┐  │
//!    │ off │──────────>│ MSI  │──┤        any set() of another kind clears first:
//!    └─────┘           └──────┘  │        VFIO takes one kind at a time
//!       ^  │ set(Msix) ┌──────┐  │
//!       │  └──────────>│MSI-X │──┤
//!       │              └──────┘  │        set(Msix) with more events adds vectors,
//!       └────────────────────────┘        without a gap where the host can do that
//! ```
#![expect(
    unsafe_code,
    reason = "vfio-ioctls cannot add vectors to those that are on"
)]

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{MutexGuard, PoisonError};

use hostcall::gate;
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_IRQ_INFO_NORESIZE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_TYPE,
};
use vfio_ioctls::{VfioDevice, VfioError};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ptr;
use vmm_sys_util::ioctl_io_nr;

use crate::{Function, error};

ioctl_io_nr!(VFIO_DEVICE_SET_IRQS, VFIO_TYPE as u32, VFIO_BASE + 10);

/// The call that all of this comes down to.
const SET_IRQS: &str = "VFIO_DEVICE_SET_IRQS";

/// 32-bit words of `struct vfio_irq_set` before its data: argsz, flags, index, start, count.
const IRQ_SET_WORDS: usize = 5;

/// A kind of interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptKind {
    /// The function's pin.
    Intx,
    /// Message-signalled interrupts.
    Msi,
    /// Message-signalled interrupts, extended.
    Msix,
}

impl InterruptKind {
    const fn index(self) -> u32 {
        match self {
            Self::Intx => VFIO_PCI_INTX_IRQ_INDEX,
            Self::Msi => VFIO_PCI_MSI_IRQ_INDEX,
            Self::Msix => VFIO_PCI_MSIX_IRQ_INDEX,
        }
    }
}

/// What is on, and how many vectors of it.
pub(crate) type Enabled = Option<(InterruptKind, u32)>;

/// Which events the function's interrupts are to signal.
#[derive(Debug, Clone, Copy)]
pub enum Interrupts<'a> {
    /// The pin: masked by the host when it fires, unmasked when `resample` is signalled.
    Intx {
        /// Signalled when the pin is asserted.
        trigger: &'a EventFd,
        /// Signalled by others to unmask it.
        resample: &'a EventFd,
    },
    /// Vector `n` signals the `n`th event; not empty.
    Msi(&'a [&'a EventFd]),
    /// Vector `n` signals the `n`th event; not empty.
    Msix(&'a [&'a EventFd]),
}

impl Interrupts<'_> {
    fn kind(&self) -> InterruptKind {
        match self {
            Self::Intx { .. } => InterruptKind::Intx,
            Self::Msi(_) => InterruptKind::Msi,
            Self::Msix(_) => InterruptKind::Msix,
        }
    }
}

/// Why interrupts could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InterruptError {
    /// The function has fewer vectors of this kind.
    #[error("{function}: has {available} {kind:?} vectors, {wanted} are wanted")]
    TooMany {
        /// The function.
        function: String,
        /// The kind.
        kind: InterruptKind,
        /// How many it has.
        available: u32,
        /// How many are wanted.
        wanted: usize,
    },
    /// A call failed.
    #[error("{function}: {action} of its {kind:?} interrupts: {SET_IRQS} failed")]
    Call {
        /// The function.
        function: String,
        /// The kind.
        kind: InterruptKind,
        /// What was being done.
        action: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Vectors could not be added.
    #[error("{function}: {SET_IRQS} for MSI-X vectors from {first}")]
    Add {
        /// The function.
        function: String,
        /// The first vector that was to be added.
        first: u32,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl Function {
    /// How many vectors of this kind the function has.
    #[must_use]
    pub fn vectors(&self, kind: InterruptKind) -> u32 {
        let info = self.device.get_irq_info(kind.index());
        info.map_or(0, |info| info.count)
    }

    /// Makes the function signal exactly these events, whatever it signalled before.
    ///
    /// # Errors
    /// When the function or the host has too few vectors; no interrupts are then on, except that
    /// MSI-X vectors that were on before a failed addition stay so.
    pub fn set_interrupts(&self, interrupts: Interrupts<'_>) -> Result<(), InterruptError> {
        let kind = interrupts.kind();
        let wanted = match interrupts {
            Interrupts::Intx { .. } => 1,
            Interrupts::Msi(events) | Interrupts::Msix(events) => events.len(),
        };
        let available = self.vectors(kind);
        let count = u32::try_from(wanted)
            .ok()
            .filter(|&count| count <= available);
        let Some(count) = count else {
            return Err(InterruptError::TooMany {
                function: self.name().to_owned(),
                kind,
                available,
                wanted,
            });
        };
        let mut enabled = self.enabled();
        if let (Interrupts::Msix(events), Some((InterruptKind::Msix, on))) = (interrupts, *enabled)
            && on < count
            && self.can_add_msix()
        {
            self.add_msix(events, on)?;
            *enabled = Some((kind, count));
            return Ok(());
        }
        self.clear(&mut enabled)?;
        match interrupts {
            Interrupts::Intx { trigger, resample } => self.enable_intx(trigger, resample)?,
            Interrupts::Msi(events) | Interrupts::Msix(events) => {
                self.set("enabling", kind, |device| {
                    device.enable_irq(kind.index(), events.to_vec())
                })?;
            }
        }
        *enabled = Some((kind, count));
        Ok(())
    }

    /// Turns off whatever interrupts are on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear_interrupts(&self) -> Result<(), InterruptError> {
        self.clear(&mut self.enabled())
    }

    fn clear(&self, enabled: &mut Enabled) -> Result<(), InterruptError> {
        let Some((kind, _)) = enabled.take() else {
            return Ok(());
        };
        self.set("disabling", kind, |device| device.disable_irq(kind.index()))
    }

    fn enabled(&self) -> MutexGuard<'_, Enabled> {
        // Set after the calls that it tells of, so that it is no further than they are.
        self.enabled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enable_intx(&self, trigger: &EventFd, resample: &EventFd) -> Result<(), InterruptError> {
        let kind = InterruptKind::Intx;
        let index = kind.index();
        self.set("enabling", kind, |device| {
            device.enable_irq(index, vec![trigger])
        })?;
        let resampled = self.set("setting the resample event", kind, |device| {
            device.set_irq_resample_fd(index, vec![resample])
        });
        resampled.inspect_err(|_| {
            // Without resample the first interrupt would be the last: better none at all.
            let _ = self.set("disabling", kind, |device| device.disable_irq(index));
        })
    }

    /// Whether MSI-X vectors can be added while others are on (Linux 6.4 and newer, where the
    /// host's interrupt domain allows it).
    fn can_add_msix(&self) -> bool {
        let info = self.device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX);
        info.is_some_and(|info| info.flags & VFIO_IRQ_INFO_NORESIZE == 0)
    }

    /// Turns on the vectors from `first` to the end of `events`; those below stay as they are.
    fn add_msix(&self, events: &[&EventFd], first: u32) -> Result<(), InterruptError> {
        let set = irq_set(VFIO_PCI_MSIX_IRQ_INDEX, first, events);
        let failed = |source| InterruptError::Add {
            function: self.name().to_owned(),
            first,
            source,
        };
        gate(SET_IRQS).map_err(failed)?;
        // SAFETY: `set` is a vfio_irq_set whose argsz is its own length; the kernel only reads it.
        let result = unsafe { ioctl_with_ptr(&self.device, VFIO_DEVICE_SET_IRQS(), set.as_ptr()) };
        if result == 0 {
            return Ok(());
        }
        Err(failed(io::Error::last_os_error()))
    }

    /// One call of vfio-ioctls about interrupts.
    fn set(
        &self,
        action: &'static str,
        kind: InterruptKind,
        call: impl FnOnce(&VfioDevice) -> Result<(), VfioError>,
    ) -> Result<(), InterruptError> {
        let done =
            gate(SET_IRQS).and_then(|()| call(&self.device).map_err(|error| error::call(error).1));
        done.map_err(|source| InterruptError::Call {
            function: self.name().to_owned(),
            kind,
            action,
            source,
        })
    }
}

/// `struct vfio_irq_set` for the vectors from `first`, whose events start at that index.
fn irq_set(index: u32, first: u32, events: &[&EventFd]) -> Vec<u32> {
    let skipped = usize::try_from(first).unwrap_or(usize::MAX);
    let added = events.get(skipped..).unwrap_or_default();
    let bytes = (IRQ_SET_WORDS + added.len()) * size_of::<u32>();
    let mut set = vec![
        u32::try_from(bytes).unwrap_or(u32::MAX),
        VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        index,
        first,
        u32::try_from(added.len()).unwrap_or(u32::MAX),
    ];
    set.extend(added.iter().map(|event| event.as_raw_fd().cast_unsigned()));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_names_only_the_new_vectors() {
        let events: Vec<EventFd> = (0..3).map(|_| EventFd::new(0).unwrap()).collect();
        let events: Vec<&EventFd> = events.iter().collect();
        let set = irq_set(VFIO_PCI_MSIX_IRQ_INDEX, 1, &events);
        let fd = |index: usize| events[index].as_raw_fd().cast_unsigned();
        assert_eq!(set, [28, 0x24, 2, 1, 2, fd(1), fd(2)]);
        assert_eq!(size_of::<u32>() * set.len(), set[0] as usize);
    }
}
