//! From a plan to a running VM, on a scripted kernel of either architecture.

use std::sync::Arc;
use std::time::Instant;

use scripted::Kernel;
use vmm::config::spec::{
    BootSpec, DmaIsolation, HotplugSpec, IommuChoice, ResourceSpec, VirtioSpec, VmSpec,
};
use vmm::launch::{LaunchError, Planned, Running, Surroundings};
use vmm::plan::{PlanOptions, VmPlan};
use vmm::run::Screen;
use vmm::stats::Stats;

pub(crate) const MIB: u64 = 1 << 20;

/// The plan for a VM of 256 MiB on a host, by `auto`. What it boots does not matter to it.
pub(crate) fn planned(facts: &str, vcpus: u32, options: PlanOptions) -> VmPlan {
    let spec = VmSpec {
        platform: None,
        vcpus,
        memory: 256 * MIB,
        dma_rule: None,
        iommu: IommuChoice::Auto,
        dma_backend: None,
        isolation: DmaIsolation::default(),
        hotplug: HotplugSpec::default(),
        boot: None,
        devices: Vec::new(),
        disks: Vec::new(),
        virtio: VirtioSpec::default(),
        resources: ResourceSpec::default(),
    };
    let facts = vmm::host::from_json(facts).unwrap();
    let outcome = vmm::plan::plan(&spec, &facts, options);
    outcome.plan().unwrap().clone()
}

pub(crate) fn launch(plan: &VmPlan, boot: &BootSpec) -> Result<Running, LaunchError> {
    let resources = ResourceSpec::default();
    let planned = Planned::new(plan.clone(), boot, resources).unwrap();
    let surroundings = Surroundings {
        screen: &Screen::of_this_process(),
        progress: &mut |_| {},
    };
    let loaded = planned.create(surroundings)?.load()?;
    let counters = Arc::new(Stats::since(Instant::now()));
    loaded.finalize()?.start(counters, None)
}

/// The calls after those that find out what the host has: those of the one VM that runs.
pub(crate) fn of_the_vm(kernel: &Kernel) -> Vec<String> {
    let notes = kernel.notes();
    let create = notes.iter().rposition(|note| note.contains("CREATE_VM "));
    notes[create.unwrap()..].to_vec()
}
