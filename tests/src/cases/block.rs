//! An emulated disk: what the guest reads and writes is what the host has in the image.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::guest::Step;
use crate::image::empty_qcow2;
use crate::operator::Operator;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an_emulated_disk_of_two_queues_reads_writes_and_discards_in_a_plain_vm",
        on: EVERY,
        needs: &[],
        run: plain,
    },
    Case {
        name: "an_emulated_disk_of_two_queues_reads_writes_and_discards_in_a_realm",
        on: ARM64,
        needs: &[],
        run: realm,
    },
    Case {
        name: "notifications_of_a_disk_cause_no_exits_to_ccvm",
        on: ARM64,
        needs: &[],
        run: no_exits,
    },
    Case {
        name: "the_counters_of_a_disk_say_what_it_has_done",
        on: EVERY,
        needs: &[],
        run: counted,
    },
    Case {
        name: "an_image_over_another_is_used_when_the_config_names_that_one",
        on: ARM64,
        needs: &[],
        run: over,
    },
    Case {
        name: "what_one_vm_writes_to_a_qcow2_image_another_reads",
        on: ARM64,
        needs: &[],
        run: qcow2,
    },
    Case {
        name: "a_disk_that_a_vm_writes_is_refused_to_another",
        on: ARM64,
        needs: &[],
        run: in_use,
    },
];

const MIB: u64 = 1 << 20;

fn plain(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = reads_and_writes(host, Platform::None)?;
    run.expect("block_bounces", "0")
}

fn realm(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = reads_and_writes(host, Platform::Realm)?;
    run.expect("block_bounces", "1")
}

/// Two disks, the second read-only, in a guest of two processors.
fn reads_and_writes(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<Run> {
    host.machine.read(
        "cd /run; head -c 16777216 /dev/urandom >block-a; head -c 1048576 /dev/urandom >block-b; sync",
    )?;
    let before = [digest(host, "block-a")?, digest(host, "block-b")?];
    let guest = Guest {
        vcpus: 2,
        emulated: vec![
            "[[disk]]\npath = \"/run/block-a\"\nserial = \"first\"\nqueues = 2".to_owned(),
            "[[disk]]\npath = \"/run/block-b\"\nreadonly = true\nqueues = 1".to_owned(),
        ],
        ..Guest::debian(platform, &[Step::Block, Step::BlockWrite])
    };
    let run = host.boot(&guest)?;
    run.expect_status(0)?;
    let sectors = |mib: u64| (mib * MIB / 512).to_string();
    for (name, mib, readonly, serial, queues, sha256) in [
        ("vda", 16, "0", "first", "2", &before[0]),
        ("vdb", 1, "1", "", "1", &before[1]),
    ] {
        run.expect(&format!("{name}_sectors"), &sectors(mib))?;
        run.expect(&format!("{name}_readonly"), readonly)?;
        run.expect(&format!("{name}_serial"), serial)?;
        run.expect(&format!("{name}_queues"), queues)?;
        run.expect(&format!("{name}_sha256"), sha256)?;
    }
    run.expect("block_failed", "0")?;
    run.expect("block_same", "1")?;
    ensure!(
        run.number("block_busy_queues")? >= 2,
        "one queue did all the work:\n{}",
        run.tail()
    );
    run.expect("block_discarded", "0")?;
    ensure!(
        run.number("block_readonly_write")? != 0,
        "the guest wrote to a read-only disk"
    );
    let written = host
        .machine
        .read("yes 'written by the guest' | head -c 1048576 | sha256sum")?;
    for at in [2, 4] {
        let there = digest(host, &format!("block-a bs=1M skip={at} count=1"))?;
        ensure!(
            written.starts_with(&there),
            "what the guest wrote at {at} MiB is not in the image"
        );
    }
    let zeroes = host.machine.read("head -c 4194304 /dev/zero | sha256sum")?;
    let discarded = digest(host, "block-a bs=1M skip=8 count=4")?;
    ensure!(
        zeroes.starts_with(&discarded),
        "what the guest discarded still has storage"
    );
    ensure!(
        digest(host, "block-b")? == before[1],
        "the read-only image has changed"
    );
    Ok(run)
}

/// The SHA-256 of a file of `/run`, or of the part of it that words for `dd` name.
pub(super) fn digest(host: &mut Host<'_>, part: &str) -> anyhow::Result<String> {
    let text = host
        .machine
        .read(&format!("dd if=/run/{part} 2>/dev/null | sha256sum"))?;
    Ok(text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// A guest that reads a thousand times more stores to devices hardly more often: KVM catches what it
/// stores to notify, in a Realm as well, where devices answer at another address.
fn no_exits(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine
        .read("head -c 4194304 /dev/urandom >/run/block-d")?;
    for &platform in Platform::of(host.arch) {
        let mut stores = |steps: &[Step]| {
            let guest = Guest {
                emulated: vec!["[[disk]]\npath = \"/run/block-d\"".to_owned()],
                ..Guest::debian(platform, steps)
            };
            let run = host.boot(&guest)?;
            run.expect_status(0)?;
            let stores = run.stats["exits"]["mmio_write"].as_u64();
            stores.with_context(|| format!("ccvm did not count exits: {}", run.stats))
        };
        let few = stores(&[Step::Block])?;
        let many = stores(&[Step::Block, Step::BlockMany])?;
        ensure!(
            many < few + 500,
            "{many} stores to devices, {few} without the reads"
        );
    }
    Ok(())
}

/// A thousand reads of 4 KiB, beside whatever else the guest reads.
fn counted(host: &mut Host<'_>) -> anyhow::Result<()> {
    const COUNTS: &str = "/run/ccvm-counts";
    host.machine
        .read("head -c 4194304 /dev/urandom >/run/block-e")?;
    let guest = Guest {
        emulated: vec!["[[disk]]\npath = \"/run/block-e\"\nqueues = 1".to_owned()],
        ..Guest::debian(Platform::None, &[Step::Block, Step::BlockMany, Step::Hold])
    };
    let does = format!(
        "ctl metrics --format json >{COUNTS}\n\
         echo @@ samples=$(ctl metrics --format prometheus | grep -c '^ccvm_virtio_.*kind=\"disk\"')"
    );
    let operator = Operator::new("@@ holding=1", &does);
    let run = host.boot_beside(&guest, &operator)?;
    run.expect_status(0)?;
    run.expect("block_many", "0")?;
    run.expect("samples", "6")?;
    let counts = host.machine.read(&format!("cat {COUNTS}"))?;
    let counts: Value = serde_json::from_str(&counts).context("the counters are no JSON")?;
    let disk = &counts["metrics"]["emulated"][0];
    ensure!(disk["kind"] == "disk", "{counts}");
    let queue = &disk["queues"][0];
    let at_least = |what: &str, least: u64| {
        let count = queue[what].as_u64().unwrap_or_default();
        ensure!(count >= least, "{what}: {count}, not {least}: {queue}");
        Ok(())
    };
    at_least("requests", 1000)?;
    at_least("bytes_from_guest", 1000 * 16)?;
    // The whole disk first, and then the small reads.
    at_least("bytes_to_guest", 4 * MIB + 1000 * 4096)?;
    at_least("notifications", 1)?;
    at_least("interrupts", 500)?;
    ensure!(queue["errors"] == 0, "{queue}");
    Ok(())
}

/// An image as QEMU makes it, over a raw one.
fn over(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.require("qemu-img")?;
    host.machine.read(
        "head -c 16777216 /dev/urandom >/run/base && rm -f /run/over.qcow2 && \
         qemu-img create -q -f qcow2 -F raw -b /run/base /run/over.qcow2",
    )?;
    let base = digest(host, "base")?;
    let guest = |backing: &str| Guest {
        emulated: vec![format!(
            "[[disk]]\npath = \"/run/over.qcow2\"\nqueues = 1\n{backing}"
        )],
        ..Guest::debian(Platform::None, &[Step::Block, Step::BlockWrite])
    };
    let (status, report) = host.check(&guest(""))?;
    let codes = report["diagnostics"].to_string();
    ensure!(status == 1 && codes.contains("CCVM0606"), "{codes}");
    let run = host.boot(&guest("backing = \"/run/base\""))?;
    run.expect_status(0)?;
    run.expect("vda_sha256", &base)?;
    run.expect("block_failed", "0")?;
    run.expect("block_same", "1")?;
    ensure!(digest(host, "base")? == base, "the image under it changed");
    host.machine.read("qemu-img check -q /run/over.qcow2")?;
    let written = host
        .machine
        .read("yes 'written by the guest' | head -c 1048576 | sha256sum")?;
    let there = host.machine.read(
        "qemu-img dd -O raw bs=1M skip=2 count=3 if=/run/over.qcow2 of=/run/part && \
         dd if=/run/part bs=1M count=1 2>/dev/null | sha256sum",
    )?;
    ensure!(there == written, "QEMU reads something else at 2 MiB");
    Ok(())
}

fn qcow2(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine
        .write("/run/disk.qcow2", &empty_qcow2(16 * MIB))?;
    let guest = |steps: &[Step]| Guest {
        emulated: vec!["[[disk]]\npath = \"/run/disk.qcow2\"\nqueues = 1".to_owned()],
        ..Guest::debian(Platform::None, steps)
    };
    let first = host.boot(&guest(&[Step::Block, Step::BlockWrite]))?;
    first.expect_status(0)?;
    let zeroes = host
        .machine
        .read("head -c 16777216 /dev/zero | sha256sum")?;
    ensure!(
        zeroes.starts_with(first.fact("vda_sha256")?),
        "an empty image does not read as zeroes"
    );
    first.expect("block_failed", "0")?;
    first.expect("block_same", "1")?;
    first.expect("block_discarded", "0")?;
    let second = host.boot(&guest(&[Step::Block]))?;
    second.expect_status(0)?;
    let expected = host.machine.read(
        "{ head -c 2097152 /dev/zero; yes 'written by the guest' | head -c 1048576; \
         head -c 13631488 /dev/zero; } | sha256sum",
    )?;
    ensure!(
        expected.starts_with(second.fact("vda_sha256")?),
        "the second VM reads something else"
    );
    Ok(())
}

fn in_use(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine.read("truncate -s 1048576 /run/block-c")?;
    let guest = Guest {
        emulated: vec!["[[disk]]\npath = \"/run/block-c\"".to_owned()],
        ..Guest::debian(Platform::None, &[Step::Block, Step::Hold])
    };
    let does = format!(
        "{} run /run/ccvm-test.toml >second 2>&1; echo @@ second=$?\n\
         echo @@ code=$(grep -c CCVM0603 second)\n\
         {} check /run/ccvm-test.toml >/dev/null 2>&1; echo @@ check=$?",
        host.ccvm, host.ccvm
    );
    let operator = Operator::new("@@ holding=1", &does);
    let run = host.boot_beside(&guest, &operator)?;
    run.expect_status(0)?;
    run.expect("second", "1")?;
    run.expect("code", "1")?;
    run.expect("check", "0")
}
