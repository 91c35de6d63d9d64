//! Whether a VM can have what its `[resources]` ask of the host.
//!
//! ```text
//! VmSpec + VmPlan ─► of_plan ─► findings that hold on every host
//!                └─► of_host ─► findings about this one: its pool, nodes, CPUs, free memory
//! ```

mod host;
#[cfg(test)]
mod tests;

pub use host::of_host;

use crate::config::Size;
use crate::config::spec::ResourceSpec;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::plan::VmPlan;

/// What of the resources is impossible for the VM, wherever it runs.
#[must_use]
pub fn of_plan(spec: &ResourceSpec, plan: &VmPlan) -> Option<Diagnostic> {
    let page = spec.huge_pages.pool_page()?;
    let (size, place) = (Size(page), Place::Resources("huge-pages"));
    if plan.platform().is_confidential() {
        let message = format!(
            "a VM of the kind '{}' cannot be made of huge pages of {size} from the pool: its pages are \
             shared and taken back one by one, and such a page cannot be split",
            plan.platform()
        );
        let help = "leave out `huge-pages`: the host then uses huge pages as it finds them, and splits \
                    them where it must";
        let finding = Diagnostic::error(Code::HugePagesImpossible, message);
        return Some(finding.on(place).with_help(help));
    }
    let mut ranges = plan.dram().iter();
    let odd = ranges.find(|range| !range.bytes().is_multiple_of(page))?;
    let message = format!(
        "a range of guest memory has {}, which is not a multiple of {size}",
        Size(odd.bytes())
    );
    let help = match plan.dram() {
        [_] => format!("make `memory` a multiple of \"{size}\", or take smaller pages"),
        _ => "memory lies in several ranges: see `ccvm check`; take smaller pages".to_owned(),
    };
    let finding = Diagnostic::error(Code::HugePagesImpossible, message);
    Some(finding.on(place).with_help(help))
}
