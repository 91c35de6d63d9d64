//! Interrupt lines of emulated devices, wired to the in-kernel interrupt controller.

use devices::irq::IrqLine;
use devices::rate_limit::RateLimit;
use kvm::Vm;
use kvm::aarch64::Spi;

static LOST: RateLimit = RateLimit::per_second(1);

/// One line.
pub(super) struct GicLine {
    vm: Vm,
    line: Option<Spi>,
}

impl GicLine {
    /// The line `number`, counted as in the device tree.
    pub(super) fn new(vm: &Vm, number: u32) -> Self {
        Self {
            vm: vm.clone(),
            line: Spi::new(number),
        }
    }
}

impl IrqLine for GicLine {
    fn set_level(&self, high: bool) {
        let driven = self.line.map(|line| self.vm.set_irq_line(line, high));
        if let Some(Err(error)) = driven
            && let Some(skipped) = LOST.permit()
        {
            tracing::error!(%error, skipped, "an interrupt is lost");
        }
    }
}
