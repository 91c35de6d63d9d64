//! An emulated network card: what one side sends, the other has, over a tap of the host.

use anyhow::ensure;

use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::guest::Step;
use crate::operator::Operator;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an_emulated_network_card_carries_traffic_in_a_plain_vm_and_after_its_driver_comes_back",
        on: EVERY,
        needs: &[],
        run: plain,
    },
    Case {
        name: "an_emulated_network_card_carries_traffic_in_a_realm",
        on: ARM64,
        needs: &[],
        run: realm,
    },
    Case {
        name: "an_emulated_network_card_of_two_queue_pairs_carries_traffic",
        on: ARM64,
        needs: &[],
        run: two_pairs,
    },
    Case {
        name: "an_emulated_network_card_carries_traffic_over_a_tap_that_ccvm_is_started_with",
        on: EVERY,
        needs: &[],
        run: handed_over,
    },
    Case {
        name: "a_tap_that_another_vm_has_is_refused",
        on: ARM64,
        needs: &[],
        run: in_use,
    },
];

const TRANSFER: u64 = 1 << 20;
pub(crate) const MAC: &str = "02:00:00:00:00:2a";

/// What the host does: brings the tap up and lets programs answer at it.
const PEER: &str = "\
    until [ -e /sys/class/net/tap0 ]; do sleep 0.2; done\n\
    ifconfig tap0 10.0.3.1 netmask 255.255.255.0 up\n\
    head -c 1048576 /dev/urandom >offered; : >received\n\
    nc -l -p 4001 -e sh -c 'cat >received' &\n\
    nc -l -p 4002 -e cat offered &\n";

fn net(queues: u32) -> String {
    format!("[[net]]\ntap = \"tap0\"\nmac = \"{MAC}\"\nqueues = {queues}")
}

/// Boots `guest` with its peer beside it: both have what the other sent.
fn carries_traffic(host: &mut Host<'_>, guest: &Guest) -> anyhow::Result<Run> {
    carries_traffic_by(host, guest, "")
}

/// As [`carries_traffic`], with `by` in front of ccvm's name.
fn carries_traffic_by(host: &mut Host<'_>, guest: &Guest, by: &str) -> anyhow::Result<Run> {
    let operator = Operator {
        by,
        seconds: 300,
        ..Operator::new("@@ init=1", PEER)
    };
    let run = host.boot_beside(guest, &operator)?;
    run.expect_status(0)?;
    run.expect("vnet_mac", MAC)?;
    run.expect("vnet_ping", "0")?;
    run.expect("vnet_big_pings", "5")?;
    for feature in ["vnet_csum", "vnet_tso4", "vnet_merges"] {
        run.expect(feature, "1")?;
    }
    run.expect("fetched_bytes", &TRANSFER.to_string())?;
    for (fact, file) in [("sent_sha256", "received"), ("fetched_sha256", "offered")] {
        let there = host.machine.read(&format!("sha256sum </run/{file}"))?;
        ensure!(
            there.starts_with(run.fact(fact)?),
            "{fact}: the other side has something else\n{}",
            run.tail()
        );
    }
    Ok(run)
}

fn plain(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        emulated: vec![net(1)],
        ..Guest::debian(Platform::None, &[Step::VirtioNet, Step::VirtioReload])
    };
    let run = carries_traffic(host, &guest)?;
    run.expect("vnet_bounces", "0")?;
    run.expect("reload_ping1", "0")?;
    run.expect("reload_ping2", "0")?;
    tap_is_gone(host)
}

fn tap_is_gone(host: &mut Host<'_>) -> anyhow::Result<()> {
    let interfaces = host.machine.read("ls /sys/class/net")?;
    ensure!(
        interfaces.split_whitespace().all(|name| name != "tap0"),
        "the tap that came with ccvm is still there"
    );
    Ok(())
}

/// Who starts ccvm has made the tap; ccvm gets no more than the descriptor.
fn handed_over(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        emulated: vec![format!("[[net]]\nfd = 9\nmac = \"{MAC}\"")],
        ..Guest::debian(Platform::None, &[Step::VirtioNet, Step::VirtioReload])
    };
    let run = carries_traffic_by(host, &guest, "nested with-tap tap0 9")?;
    run.expect("reload_ping2", "0")?;
    tap_is_gone(host)
}

fn realm(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        emulated: vec![net(1)],
        ..Guest::debian(Platform::Realm, &[Step::Facts, Step::VirtioNet])
    };
    let run = carries_traffic(host, &guest)?;
    run.expect("rsi", "1.0")?;
    run.expect("vnet_bounces", "1")
}

fn two_pairs(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        vcpus: 2,
        emulated: vec![net(2)],
        ..Guest::debian(Platform::None, &[Step::VirtioNet])
    };
    let run = carries_traffic(host, &guest)?;
    run.expect("vnet_queues", "2")
}

fn in_use(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        emulated: vec![net(1)],
        ..Guest::debian(Platform::None, &[Step::Hold])
    };
    let does = format!(
        "{} run /run/ccvm-test.toml >second 2>&1; echo @@ second=$?\n\
         echo @@ code=$(grep -c CCVM0612 second)",
        host.ccvm
    );
    let operator = Operator::new("@@ holding=1", &does);
    let run = host.boot_beside(&guest, &operator)?;
    run.expect_status(0)?;
    run.expect("second", "1")?;
    run.expect("code", "1")
}
