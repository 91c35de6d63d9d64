//! Devices that daemons of the host serve: what the guest reads and writes is what the daemon has.
//!
//! The daemons are those of the distribution: QEMU's for a disk, virtiofsd for a file system, passt for a
//! network interface.

use anyhow::ensure;

use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::daemon::Daemon;
use crate::guest::Step;
use crate::operator::Operator;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_disk_that_a_daemon_serves_reads_writes_and_discards",
        on: EVERY,
        needs: &[],
        run: disk,
    },
    Case {
        name: "a_file_system_that_a_daemon_serves_is_read_and_written",
        on: EVERY,
        needs: &[],
        run: file_system,
    },
    Case {
        name: "a_network_interface_that_a_daemon_serves_carries_traffic",
        on: ARM64,
        needs: &[],
        run: network,
    },
    Case {
        name: "a_guest_outlives_the_daemon_that_serves_its_disk_and_hears_that_the_disk_is_dead",
        on: EVERY,
        needs: &[],
        run: killed,
    },
];

const MIB: u64 = 1 << 20;

/// The SHA-256 of what a command of the host prints.
fn digest(host: &mut Host<'_>, of: &str) -> anyhow::Result<String> {
    let text = host.machine.read(&format!("{of} | sha256sum"))?;
    let digest = text.split_whitespace().next();
    Ok(digest.unwrap_or_default().to_owned())
}

/// A disk of 16 MiB of random bytes and two queues, and its table in a config.
fn serve_disk(host: &mut Host<'_>) -> anyhow::Result<(Daemon, String)> {
    host.machine
        .read("head -c 16777216 /dev/urandom >/run/served; sync")?;
    let daemon = Daemon::disk(host, "/run/served", 2)?;
    let table = format!(
        "[[vhost-user]]\nkind = \"block\"\nsocket = \"{}\"\nqueues = 2",
        daemon.socket
    );
    Ok((daemon, table))
}

fn disk(host: &mut Host<'_>) -> anyhow::Result<()> {
    let (daemon, table) = serve_disk(host)?;
    let before = digest(host, "cat /run/served")?;
    let guest = Guest {
        vcpus: 2,
        emulated: vec![table],
        ..Guest::debian(Platform::None, &[Step::Block, Step::BlockWrite])
    };
    let run = host.boot(&guest)?;
    daemon.end(host)?;
    run.expect_status(0)?;
    run.expect("vda_sectors", &(16 * MIB / 512).to_string())?;
    run.expect("vda_readonly", "0")?;
    run.expect("vda_queues", "2")?;
    run.expect("vda_sha256", &before)?;
    run.expect("block_failed", "0")?;
    run.expect("block_same", "1")?;
    run.expect("block_discarded", "0")?;
    ensure!(
        run.number("block_busy_queues")? >= 2,
        "one queue did all the work:\n{}",
        run.tail()
    );
    let written = digest(host, "yes 'written by the guest' | head -c 1048576")?;
    for at in [2, 4] {
        let there = digest(
            host,
            &format!("dd if=/run/served bs=1M skip={at} count=1 2>/dev/null"),
        )?;
        ensure!(there == written, "the file at {at} MiB has something else");
    }
    let zeroes = digest(host, "head -c 4194304 /dev/zero")?;
    let discarded = digest(host, "dd if=/run/served bs=1M skip=8 count=4 2>/dev/null")?;
    ensure!(
        discarded == zeroes,
        "what the guest discarded is still there"
    );
    Ok(())
}

/// Without its daemon the disk says that it needs a reset, what the guest asks of it is not answered, and the
/// guest goes on until it turns itself off.
fn killed(host: &mut Host<'_>) -> anyhow::Result<()> {
    let (daemon, table) = serve_disk(host)?;
    let guest = Guest {
        emulated: vec![table],
        ..Guest::debian(Platform::None, &[Step::Block, Step::Hold, Step::Abandoned])
    };
    let does = "kill -KILL $(cat /run/qemu-storage-daemon.pid)";
    let operator = Operator::new("@@ holding=1", does);
    let run = host.boot_beside(&guest, &operator)?;
    daemon.end(host)?;
    run.expect_status(0)?;
    run.expect("abandoned", "0")?;
    run.expect("abandoned_reader_waits", "1")?;
    let told = "the daemon at /run/qemu-storage-daemon.socket is gone";
    ensure!(run.output.text.contains(told), "{}", run.tail());
    Ok(())
}

fn file_system(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine.read(
        "rm -rf /run/shared; mkdir -p /run/shared/folder\n\
         head -c 1048576 /dev/urandom >/run/shared/folder/offered",
    )?;
    let offered = digest(host, "cat /run/shared/folder/offered")?;
    let daemon = Daemon::folder(host, "/run/shared")?;
    let table = format!(
        "[[vhost-user]]\nkind = \"fs\"\nsocket = \"{}\"\ntag = \"shared\"",
        daemon.socket
    );
    let guest = Guest {
        emulated: vec![table],
        ..Guest::debian(Platform::None, &[Step::Fs])
    };
    let run = host.boot(&guest)?;
    daemon.end(host)?;
    run.expect_status(0)?;
    run.expect("fs_mounted", "0")?;
    run.expect("fs_offered_sha256", &offered)?;
    run.expect("fs_unmounted", "0")?;
    let there = digest(host, "cat /run/shared/new/received")?;
    run.expect("fs_sent_sha256", &there)?;
    let left = host.machine.read("ls /run/shared")?;
    ensure!(
        left.split_whitespace().eq(["folder", "new"]),
        "the host has {left}"
    );
    Ok(())
}

/// What the host does: programs that answer at its own address, which the daemon shows the guest as that
/// of its gateway.
const PEER: &str = "\
    ifconfig lo 127.0.0.1 up\n\
    head -c 1048576 /dev/urandom >offered; : >received\n\
    nc -l -p 4001 -e sh -c 'cat >received' &\n\
    nc -l -p 4002 -e cat offered &\n";

fn network(host: &mut Host<'_>) -> anyhow::Result<()> {
    let daemon = Daemon::network(host)?;
    let table = format!(
        "[[vhost-user]]\nkind = \"net\"\nsocket = \"{}\"\nmac = \"02:00:00:00:00:2b\"",
        daemon.socket
    );
    let guest = Guest {
        emulated: vec![table],
        ..Guest::debian(Platform::None, &[Step::UserNet, Step::Transfer])
    };
    let operator = Operator::new("@@ init=1", PEER);
    let run = host.boot_beside(&guest, &operator)?;
    daemon.end(host)?;
    run.expect_status(0)?;
    run.expect("user_net", "0")?;
    run.expect("user_net_mac", "02:00:00:00:00:2b")?;
    same_on_both_sides(host, &run)
}

fn same_on_both_sides(host: &mut Host<'_>, run: &Run) -> anyhow::Result<()> {
    run.expect("fetched_bytes", &MIB.to_string())?;
    for (fact, file) in [("sent_sha256", "received"), ("fetched_sha256", "offered")] {
        let there = digest(host, &format!("cat /run/{file}"))?;
        run.expect(fact, &there)?;
    }
    Ok(())
}
