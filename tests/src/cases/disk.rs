//! A disk is assigned: the guest's own driver reads it and writes it, and the host's driver agrees.

use anyhow::ensure;

use crate::arch::{ARM64, EVERY, X86_64};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::devices::Role;
use crate::guest::{Program, Step};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an_ahci_disk_reads_and_writes_in_a_realm",
        on: ARM64,
        needs: &[Role::Ahci],
        run: ahci,
    },
    Case {
        name: "an_nvme_disk_reads_and_writes_in_a_realm",
        on: ARM64,
        needs: &[Role::Nvme],
        run: nvme,
    },
    Case {
        name: "an_ahci_disk_reads_and_writes_in_a_plain_vm",
        on: X86_64,
        needs: &[Role::Ahci],
        run: |host| plain_disk(host, Role::Ahci),
    },
    Case {
        name: "an_nvme_disk_with_its_msix_table_among_its_registers_reads_and_writes_in_a_plain_vm",
        on: X86_64,
        needs: &[Role::Nvme],
        run: |host| plain_disk(host, Role::Nvme),
    },
    Case {
        name: "an_nvme_disk_with_its_msix_table_in_a_bar_of_its_own_reads_and_writes_in_a_plain_vm",
        on: EVERY,
        needs: &[Role::ApartNvme],
        run: |host| plain_disk(host, Role::ApartNvme),
    },
];

fn ahci(host: &mut Host<'_>) -> anyhow::Result<()> {
    disk(host, Role::Ahci)
}

fn nvme(host: &mut Host<'_>) -> anyhow::Result<()> {
    disk(host, Role::Nvme)
}

/// A Realm reads a disk and writes to it, and what both sides see is the same.
pub(super) fn disk(host: &mut Host<'_>, role: Role) -> anyhow::Result<()> {
    let guest = Guest {
        devices: vec![(role, Some(36))],
        ..Guest::debian(Platform::Realm, &[])
    };
    let run = intact(host, role, &guest, Step::Facts)?;
    run.expect("rsi", "1.0")?;
    // The kernel says so when it first copies a buffer, and a Realm's must be copied.
    run.expect("bounces", "1")?;
    ensure!(
        run.converted("private_pages")? > 0,
        "the driver gave no shared memory back"
    );
    Ok(())
}

/// A plain VM does the same, and its driver has no need to copy.
pub(super) fn plain_disk(host: &mut Host<'_>, role: Role) -> anyhow::Result<()> {
    let guest = Guest {
        devices: vec![(role, Some(36))],
        ..Guest::debian(Platform::None, &[])
    };
    let run = intact(host, role, &guest, Step::Facts)?;
    run.expect("bounces", "0")
}

/// Has `guest` do its first step, read a disk that it has and, where that is allowed, write to it: what
/// both sides see is the same.
pub(super) fn intact(
    host: &mut Host<'_>,
    role: Role,
    guest: &Guest,
    first: Step,
) -> anyhow::Result<Run> {
    let at_start = host_digest(host, role, MebiBytes { skip: 0, count: 4 })?;
    host.bind(&[role])?;
    let may_write = host.is_scratch(role)?;
    let steps: &[Step] = if may_write {
        &[first, Step::Disk, Step::Write, Step::Unload]
    } else {
        &[first, Step::Disk, Step::Unload]
    };
    let run = host.boot(&Guest {
        program: Program::debian(steps),
        ..guest.clone()
    })?;
    run.expect_status(0)?;
    run.expect("disk_sha256", &at_start)?;
    ensure!(
        run.number("disk_interrupts")? > 0,
        "the disk raised no interrupt"
    );
    host.unbind(&[role])?;
    if may_write {
        run.expect("written", "0")?;
        let expected = host
            .machine
            .read("yes 'written by the guest' | head -c 1048576 | sha256sum")?;
        let there = host_digest(host, role, MebiBytes { skip: 8, count: 1 })?;
        ensure!(
            expected.starts_with(&there),
            "what the guest wrote is not on the disk"
        );
    }
    Ok(run)
}

/// Part of a disk.
#[derive(Clone, Copy)]
pub(super) struct MebiBytes {
    pub(super) skip: u32,
    pub(super) count: u32,
}

/// The SHA-256 of part of a disk as the host's own driver reads it.
pub(super) fn host_digest(
    host: &mut Host<'_>,
    role: Role,
    part: MebiBytes,
) -> anyhow::Result<String> {
    host.unbind(&[role])?;
    // An NVMe disk belongs to a subsystem, so its controller tells its name.
    let disk = host.machine.read(&format!(
        "for _ in $(seq 100); do for node in /sys/block/sd* /sys/class/nvme/nvme*; do \
         case $(readlink -f \"$node\") in */{}/*) break 2; esac; node=; done; sleep 0.1; done; \
         case $node in */nvme*) echo ${{node##*/}}n1;; *) echo ${{node##*/}};; esac",
        host.address(role)?
    ))?;
    host.machine.read(&format!(
        "for _ in $(seq 100); do [ -b /dev/{disk} ] && exit 0; sleep 0.1; done; exit 1"
    ))?;
    // A disk whose driver has just come may not open yet, or have nothing to read.
    let MebiBytes { skip, count } = part;
    let bytes = u64::from(count) << 20;
    let text = host.machine.read(&format!(
        "echo 1 >/proc/sys/vm/drop_caches; for _ in $(seq 50); do rm -f /run/part; \
         dd if=/dev/{disk} bs=1M skip={skip} count={count} of=/run/part 2>/run/complaint; \
         [ \"$(stat -c %s /run/part)\" = {bytes} ] && sha256sum </run/part && exit 0; \
         sleep 0.1; done; cat /run/complaint; exit 1"
    ))?;
    Ok(text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}
