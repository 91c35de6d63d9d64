//! What this host has of what is asked for.

use std::path::Path;

use crate::config::spec::ResourceSpec;
use crate::config::{NumberList, Size};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::host::Roots;

/// Bytes of a KiB, the unit of `meminfo` and of the pool's names.
const KIB: u64 = 1024;

/// What of the resources of a VM with `memory` bytes this host does not have.
#[must_use]
pub fn of_host(spec: &ResourceSpec, memory: u64, roots: &Roots) -> Vec<Diagnostic> {
    let findings = [
        pool(spec, memory, roots),
        free_memory(spec, memory, roots),
        nodes(spec, roots),
        cpus(spec),
    ];
    findings.into_iter().flatten().collect()
}

fn pool(spec: &ResourceSpec, memory: u64, roots: &Roots) -> Option<Diagnostic> {
    let page = spec.huge_pages.pool_page()?;
    let place = Place::Resources("huge-pages");
    let (size, kib) = (Size(page), page / KIB);
    let folder = roots.sysfs.join("kernel/mm/hugepages");
    let folder = folder.join(format!("hugepages-{kib}kB"));
    let Some(free) = number(&folder.join("free_hugepages")) else {
        let message = format!("this host has no huge pages of {size}");
        let help = "the processor or the kernel lacks them: see /sys/kernel/mm/hugepages";
        let finding = Diagnostic::error(Code::HugePagesMissing, message);
        return Some(finding.on(place).with_help(help));
    };
    let read = |name: &str| number(&folder.join(name)).unwrap_or(0);
    let more = read("nr_overcommit_hugepages").saturating_sub(read("surplus_hugepages"));
    let free = free
        .saturating_sub(read("resv_hugepages"))
        .saturating_add(more);
    let needed = memory.div_ceil(page);
    if free >= needed {
        return None;
    }
    let all = read("nr_hugepages").saturating_add(needed - free);
    let message = format!(
        "{} of memory need {needed} huge pages of {size}, and {free} are free",
        Size(memory)
    );
    let help = format!(
        "as root: echo {all} >{}/nr_hugepages; soon after boot, or by hugepagesz= and hugepages= on the \
         host's command line, there is more room",
        folder.display()
    );
    let finding = Diagnostic::error(Code::HugePagesMissing, message);
    Some(finding.on(place).with_help(help))
}

/// Memory that comes as it is touched may be more than there is; memory that is filled may not.
fn free_memory(spec: &ResourceSpec, memory: u64, roots: &Roots) -> Option<Diagnostic> {
    if !spec.prefault || spec.huge_pages.pool_page().is_some() {
        return None;
    }
    let text = std::fs::read_to_string(roots.procfs.join("meminfo")).ok()?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().trim_end_matches(" kB").parse().ok()?;
    let available = kib.saturating_mul(KIB);
    if available >= memory {
        return None;
    }
    let message = format!(
        "{} of memory are to be filled in advance, and the host has {} left",
        Size(memory),
        Size(available).rough()
    );
    let finding = Diagnostic::error(Code::NotPrefaulted, message);
    let help = "give the VM less memory, or leave out `prefault`";
    Some(finding.on(Place::Resources("prefault")).with_help(help))
}

fn nodes(spec: &ResourceSpec, roots: &Roots) -> Option<Diagnostic> {
    let asked = spec.numa_nodes.as_ref()?;
    let place = Place::Resources("numa-nodes");
    let path = roots.sysfs.join("devices/system/node/has_memory");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let Ok(there) = text.trim().parse::<NumberList>() else {
        let message = "the host's kernel knows of no NUMA nodes";
        let finding = Diagnostic::error(Code::NumaNodeAbsent, message);
        return Some(finding.on(place).with_help("leave out `numa-nodes`"));
    };
    let absent = first_absent(asked, there.numbers())?;
    let message = format!("the host has no NUMA node {absent} with memory");
    let help = format!("nodes with memory: {there}");
    let finding = Diagnostic::error(Code::NumaNodeAbsent, message);
    Some(finding.on(place).with_help(help))
}

fn cpus(spec: &ResourceSpec) -> Option<Diagnostic> {
    let asked = spec.pin_vcpus.as_ref()?;
    let allowed = rustix::thread::sched_getaffinity(None).ok()?;
    let is_allowed = |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| allowed.is_set(cpu));
    let absent = asked.numbers().iter().find(|cpu| !is_allowed(cpu))?;
    let message = format!("ccvm may not run on CPU {absent}, or the host has none of that number");
    let help = "`taskset --cpu-list --pid $$` shows which may be used; systemd's CPUAffinity= and \
                AllowedCPUs= and control groups limit them";
    let finding = Diagnostic::error(Code::CpuAbsent, message);
    let place = Place::Resources("pin-vcpus");
    Some(finding.on(place).with_help(help))
}

fn first_absent(asked: &NumberList, there: &[u32]) -> Option<u32> {
    let mut asked = asked.numbers().iter();
    asked.find(|number| !there.contains(number)).copied()
}

fn number(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.trim().parse().ok()
}
