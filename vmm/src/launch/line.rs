//! Interrupt lines of emulated devices, wired to the in-kernel interrupt controller.

use devices::irq::IrqLine;
use devices::rate_limit::RateLimit;
use kvm::{IrqInput, Vm};

static LOST: RateLimit = RateLimit::per_second(1);

/// One line.
pub(super) struct ControllerLine {
    vm: Vm,
    line: Option<IrqInput>,
}

impl ControllerLine {
    /// The line that drives `input`; none drives nothing.
    pub(super) fn new(vm: &Vm, input: Option<IrqInput>) -> Self {
        Self {
            vm: vm.clone(),
            line: input,
        }
    }
}

impl IrqLine for ControllerLine {
    fn set_level(&self, high: bool) {
        let driven = self.line.map(|line| self.vm.set_irq_line(line, high));
        if let Some(Err(error)) = driven
            && let Some(skipped) = LOST.permit()
        {
            tracing::error!(%error, skipped, "an interrupt is lost");
        }
    }
}
