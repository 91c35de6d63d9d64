//! Interrupt lines of emulated devices, wired to an IOAPIC of this process.

use std::sync::{Arc, Mutex, PoisonError};

use devices::ioapic::Ioapic;
use devices::irq::{IrqLine, MsiMessage};
use devices::rate_limit::RateLimit;
use kvm::Vm;

static LOST: RateLimit = RateLimit::per_second(1);

/// One line.
pub(super) struct IoapicLine {
    pub(super) ioapic: Arc<Mutex<Ioapic>>,
    pub(super) input: usize,
}

impl IrqLine for IoapicLine {
    fn set_level(&self, high: bool) {
        // Its registers are plain numbers, right or wrong.
        let ioapic = self.ioapic.lock();
        let mut ioapic = ioapic.unwrap_or_else(PoisonError::into_inner);
        ioapic.drive(self.input, high);
    }
}

/// An IOAPIC whose messages go to the local APICs of `vm`.
pub(super) fn ioapic(vm: &Vm) -> Arc<Mutex<Ioapic>> {
    let vm = vm.clone();
    let deliver = move |message: MsiMessage| {
        if let Err(error) = vm.signal_message(message.address, message.data)
            && let Some(skipped) = LOST.permit()
        {
            tracing::error!(%error, skipped, "an interrupt is lost");
        }
    };
    Arc::new(Mutex::new(Ioapic::new(Box::new(deliver))))
}
