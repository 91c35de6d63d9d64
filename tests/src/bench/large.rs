//! What the start of a large guest takes, by how its memory is taken from the host.
#![expect(clippy::print_stdout, reason = "the figures go to standard output")]

use super::start::StartUp;
use crate::case::{Guest, Host, Platform};
use crate::guest::Step;

/// The pool of huge pages.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Prints them for large guests. The largest has more than the host: it touches a small part of that.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    println!("\nLarge guests, plain VMs; the host has 4 GiB");
    for (memory, name, resources) in [
        ("2 GiB", "as the guest touches it", ""),
        ("2 GiB", "prefault", "prefault = true"),
        ("2 GiB", "huge pages of the pool", "huge-pages = \"2 MiB\""),
        ("3 GiB", "as the guest touches it", ""),
        ("3 GiB", "prefault", "prefault = true"),
        ("64 GiB", "as the guest touches it", ""),
    ] {
        let pooled = resources.contains("huge-pages");
        // Memory that is in pieces makes no huge pages.
        let pool = if pooled { 1024 } else { 0 };
        host.machine.read(&format!(
            "echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory; echo {pool} >{POOL}"
        ))?;
        let guest = Guest {
            memory: memory.to_owned(),
            emulated: vec![format!("[resources]\n{resources}")],
            ..Guest::debian(Platform::None, &[Step::Facts])
        };
        let start = StartUp::measure(host, &guest)?;
        println!("  {memory:>6}, {name:28} {start}");
    }
    host.machine.read(&format!("echo 0 >{POOL}")).map(drop)
}
