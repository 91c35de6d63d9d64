//! Guest memory, from the nodes, in the pages and as full as the config asks for.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Instant;

use iommu::{Gpa, PageRange};
use kvm::Vm;
use kvm::numa;
use kvm::ram::Populated;

use crate::config::spec::ResourceSpec;
use crate::convert::Pages;
use crate::plan::VmPlan;
use crate::platform::Platform;

use super::LaunchError;

/// Threads that fill memory at most: by then the memory itself is what takes the time.
const MOST_THREADS: usize = 32;

/// Takes the memory of `vm` from the host, with `fixed` besides DRAM if there is any. `progress` hears how far the filling of it is.
///
/// From here on this thread, and those that it starts, take memory from the VM's nodes only.
pub(super) fn take(
    plan: &VmPlan,
    vm: &Vm,
    fixed: Option<PageRange<Gpa>>,
    resources: &ResourceSpec,
    progress: &mut dyn FnMut(Populated),
) -> Result<Arc<Pages>, LaunchError> {
    if let Some(nodes) = &resources.numa_nodes {
        numa::bind_to_nodes(nodes.numbers()).map_err(LaunchError::Nodes)?;
        tracing::info!(%nodes, "memory comes from these nodes only");
    }
    if has_guest_memfd(plan.platform()) {
        if resources.prefault || resources.huge_pages.pool_page().is_some() {
            tracing::warn!(
                "private memory is KVM's: it is neither filled in advance nor of huge pages"
            );
        }
        return Ok(Arc::new(Pages::in_guest_memfd(plan, vm, fixed)?));
    }
    let pages = Pages::new(plan, resources.huge_pages)?;
    // A page of the pool that turns out not to be there when the guest touches it ends the process:
    // nodes and control groups limit the pool beyond what was set aside. So it is filled in any case.
    if resources.prefault || resources.huge_pages.pool_page().is_some() {
        let begun = Instant::now();
        let threads = std::thread::available_parallelism();
        let threads = threads.map_or(1, NonZero::get).min(MOST_THREADS);
        let threads = NonZero::new(threads).unwrap_or(NonZero::<usize>::MIN);
        pages.ram().populate(threads, progress)?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let bytes = plan.memory();
        tracing::info!(bytes, threads, took_ms, "guest memory is filled");
    }
    Ok(Arc::new(pages))
}

/// Whether private memory of such VMs is KVM's.
fn has_guest_memfd(platform: Platform) -> bool {
    match platform {
        Platform::Cca | Platform::SwProtected | Platform::Snp | Platform::Tdx => true,
        Platform::None | Platform::EmulatedRealm | Platform::Pkvm => false,
    }
}
