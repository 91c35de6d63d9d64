//! A disk is assigned: the guest's own driver reads it and writes it, and the host's driver agrees.

use anyhow::ensure;

use crate::case::{Case, Guest, Host, Platform};
use crate::devices::Role;
use crate::guest::Step;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an_ahci_disk_reads_and_writes_in_a_realm",
        needs: &[Role::Ahci],
        run: ahci,
    },
    Case {
        name: "an_nvme_disk_reads_and_writes_in_a_realm",
        needs: &[Role::Nvme],
        run: nvme,
    },
];

fn ahci(host: &mut Host<'_>) -> anyhow::Result<()> {
    disk(host, Role::Ahci)
}

fn nvme(host: &mut Host<'_>) -> anyhow::Result<()> {
    disk(host, Role::Nvme)
}

fn disk(host: &mut Host<'_>, role: Role) -> anyhow::Result<()> {
    let at_start = host_digest(host, role, "count=4")?;
    host.bind(&[role])?;
    let may_write = host.is_scratch(role)?;
    let steps: &[Step] = if may_write {
        &[Step::Facts, Step::Disk, Step::Write, Step::Unload]
    } else {
        &[Step::Facts, Step::Disk, Step::Unload]
    };
    let guest = Guest {
        devices: vec![(role, Some(36))],
        ..Guest::debian(Platform::Realm, steps)
    };
    let run = host.boot(&guest)?;
    run.expect_status(0)?;
    run.expect("rsi", "1.0")?;
    run.expect("disk_sha256", &at_start)?;
    ensure!(
        run.number("disk_interrupts")? > 0,
        "the disk raised no interrupt"
    );
    // The kernel says so when it first copies a buffer, and a Realm's must be copied.
    run.expect("bounces", "1")?;
    ensure!(
        run.converted("private_pages")? > 0,
        "the driver gave no shared memory back"
    );
    host.unbind(&[role])?;
    if may_write {
        run.expect("written", "0")?;
        let expected = host
            .machine
            .read("yes 'written by the guest' | head -c 1048576 | sha256sum")?;
        let there = host_digest(host, role, "skip=8 count=1")?;
        ensure!(
            expected.starts_with(&there),
            "what the guest wrote is not on the disk"
        );
    }
    Ok(())
}

/// The SHA-256 of part of a disk, in MiB, as the host's own driver reads it.
fn host_digest(host: &mut Host<'_>, role: Role, part: &str) -> anyhow::Result<String> {
    host.unbind(&[role])?;
    // An NVMe disk belongs to a subsystem, so its controller tells its name.
    let disk = host.machine.read(&format!(
        "for _ in $(seq 100); do for node in /sys/block/sd* /sys/class/nvme/nvme*; do \
         case $(readlink -f $node) in */{}/*) break 2; esac; node=; done; sleep 0.1; done; \
         case $node in */nvme*) echo ${{node##*/}}n1;; *) echo ${{node##*/}};; esac",
        host.address(role)?
    ))?;
    host.machine.read(&format!(
        "for _ in $(seq 100); do [ -b /dev/{disk} ] && exit 0; sleep 0.1; done; exit 1"
    ))?;
    let text = host.machine.read(&format!(
        "echo 1 >/proc/sys/vm/drop_caches; dd if=/dev/{disk} bs=1M {part} 2>/dev/null | sha256sum"
    ))?;
    Ok(text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}
