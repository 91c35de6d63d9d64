//! A VM gets the pages, nodes and CPUs of the host that its config asks for, or a reason.

use anyhow::{Context as _, ensure};

use crate::arch::ARM64;
use crate::case::{Case, Host, in_one_line, within};
use crate::machine::{Output, Script};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_vm_has_the_huge_pages_the_node_and_the_cpus_that_it_asks_for",
        on: ARM64,
        needs: &[],
        run: resources,
    },
    Case {
        name: "resources_that_the_host_does_not_have_are_refused",
        on: ARM64,
        needs: &[],
        run: refusals,
    },
];

/// The pool of the size that hosts of 4 KiB pages have everywhere.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
const PAGES: u32 = 128;
const KIB: u32 = PAGES * 2048;

fn resources(host: &mut Host<'_>) -> anyhow::Result<()> {
    let before = host.machine.read(&format!("cat {POOL}"))?;
    let (ccvm, files) = (host.ccvm.clone(), host.files.clone());
    let vm = format!("--memory {}MiB --vcpus 2 --platform none", KIB / 1024);
    // It boots for as long as it is looked at.
    let boot = format!("--kernel {files}/kernel --initrd {files}/guest.cpio --cmdline quiet");
    let asked = "--huge-pages 2MiB --numa-nodes 0 --pin-vcpus 1,0";
    let run = format!("CCVM_LOG=info {ccvm} run {vm} {boot} {asked} --log-format json");
    // What the kernel says of the process while its guest runs.
    let script = format!(
        "echo {PAGES} >{POOL}\n\
         {run} >/run/resources.out 2>/run/resources.err & pid=$!\n\
         for i in 1 2 3 4 5 6 7 8 9 10; do\n\
         sleep 1; grep -q vcpu1 /proc/$pid/task/*/comm 2>/dev/null && break\n\
         done\n\
         grep HugetlbPages /proc/$pid/status\n\
         grep -c ' bind:0 ' /proc/$pid/numa_maps\n\
         for task in /proc/$pid/task/*; do\n\
         echo \"$(cat $task/comm) $(grep Cpus_allowed_list $task/status)\"\n\
         done\n\
         kill $pid; wait $pid; echo ended=$?\n\
         echo {} >{POOL}\n\
         cat /run/resources.err",
        before.trim()
    );
    let output = host.machine.run(&Script::boot(script))?;
    let text = in_one_line(&output.text);
    for part in [
        &format!("HugetlbPages: {KIB} kB"),
        "vcpu0 Cpus_allowed_list: 1 ",
        "vcpu1 Cpus_allowed_list: 0 ",
        "ended=143",
        "\"message\":\"guest memory is filled\"",
    ] {
        ensure!(text.contains(part), "no '{part}' in:\n{}", output.text);
    }
    let mut lines = output.text.lines();
    let bound = lines.find_map(|line| line.trim().parse::<u32>().ok());
    let bound = bound.with_context(|| format!("no count of mappings:\n{}", output.text))?;
    ensure!(bound > 0, "no mapping is bound to node 0:\n{}", output.text);
    Ok(())
}

fn refusals(host: &mut Host<'_>) -> anyhow::Result<()> {
    for (asked, code, help) in [
        (
            "--huge-pages 1GiB --memory 4096GiB",
            "CCVM0430",
            "huge pages",
        ),
        (
            "--huge-pages 2MiB --platform emulated-realm --memory 128MiB",
            "CCVM0431",
            "leave out",
        ),
        (
            "--numa-nodes 1000 --memory 128MiB",
            "CCVM0432",
            "nodes with memory",
        ),
        ("--pin-vcpus 1000 --memory 128MiB", "CCVM0433", "taskset"),
        ("--prefault --memory 4096GiB", "CCVM0434", "leave out"),
    ] {
        let boot = format!("--kernel {}/payload --cmdline test=facts", host.files);
        let command = format!("{} run {asked} {boot} 2>&1", host.ccvm);
        let Output { status, text } = host.machine.run(&Script::quick(within(30, &command)))?;
        ensure!(status == 1, "{asked}: ccvm run gave {status}: {text}");
        let text = in_one_line(&text);
        ensure!(
            text.contains(code) && text.contains(help),
            "{asked}: {text}"
        );
    }
    Ok(())
}
