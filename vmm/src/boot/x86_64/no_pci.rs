//! What a kernel is told of a machine that has no PCI bus.

use crate::plan::{Board, VmPlan};

/// The parameter about PCI; it may hold several words, and be there several times.
const PARAMETER: &str = "pci=";

/// What to add to the command line of a guest without PCI devices, if anything.
///
/// Linux looks at every slot of bus 0 by ports 0xcf8 and 0xcfc several times before ACPI tells it that there is no
/// bus (`early_pci_allowed()`, arch/x86/pci/early.c): about 290 exits, half of all that a small guest makes until
/// its init runs. An operator who says something about PCI is left alone.
#[must_use]
pub fn addition(cmdline: &str, plan: &VmPlan) -> Option<&'static str> {
    let is_pc = matches!(plan.board(), Board::Pc(_));
    (is_pc && plan.pci_windows().is_empty() && is_silent(cmdline)).then_some("pci=off")
}

fn is_silent(cmdline: &str) -> bool {
    let mut words = cmdline.split_whitespace();
    !words.any(|word| word.starts_with(PARAMETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_who_speaks_of_pci_is_left_alone() {
        assert!(is_silent("console=ttyS0 quiet"));
        assert!(!is_silent("console=ttyS0 pci=noearly quiet"));
    }
}
