//! The panic notifier (`qemu,pvpanic-mmio`): a guest kernel that panics says so by a store.
//!
//! One byte-wide register (`docs/specs/pvpanic` of QEMU, `drivers/misc/pvpanic` of Linux): a load tells
//! which events can be notified, a store notifies of some.

use crate::bus::MmioDevice;

/// The guest has panicked.
const PANICKED: u8 = 1 << 0;
/// The guest has panicked, and its crash kernel takes over.
const CRASH_LOADED: u8 = 1 << 1;

/// Tells its owner when the guest panics.
pub struct PanicNotifier {
    on_panic: Box<dyn FnMut() + Send>,
}

impl PanicNotifier {
    /// A notifier that calls `on_panic` for a guest that has panicked for good.
    #[must_use]
    pub fn new(on_panic: impl FnMut() + Send + 'static) -> Self {
        Self {
            on_panic: Box::new(on_panic),
        }
    }
}

impl MmioDevice for PanicNotifier {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (0, Some(events)) = (offset, data.first_mut()) {
            *events = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data.first()) {
            (0, Some(events)) if events & PANICKED != 0 => (self.on_panic)(),
            (0, Some(events)) if events & CRASH_LOADED != 0 => {
                tracing::warn!("the guest has panicked; its crash kernel takes over");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_a_panic_for_good_is_told() {
        let panics = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&panics);
        let mut notifier = PanicNotifier::new(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let mut events = [0];
        notifier.read(0, &mut events);
        assert_eq!(events, [3]);
        notifier.write(0, &[2]);
        notifier.write(1, &[1]);
        notifier.write(0, &[]);
        assert_eq!(panics.load(Ordering::Relaxed), 0);
        notifier.write(0, &[1]);
        assert_eq!(panics.load(Ordering::Relaxed), 1);
    }
}
