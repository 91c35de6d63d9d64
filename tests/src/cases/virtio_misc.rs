//! The small emulated devices: random numbers, the console, sockets; and what is refused for a Realm.

use anyhow::ensure;

use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::guest::Step;
use crate::operator::Operator;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_guest_reads_random_numbers_of_its_host",
        on: EVERY,
        needs: &[],
        run: rng,
    },
    Case {
        name: "a_virtio_console_speaks_and_listens",
        on: EVERY,
        needs: &[],
        run: console,
    },
    Case {
        name: "a_guest_and_its_host_exchange_a_megabyte_by_a_socket",
        on: EVERY,
        needs: &[],
        run: vsock,
    },
    Case {
        name: "what_others_serve_is_refused_for_a_realm",
        on: ARM64,
        needs: &[],
        run: refused,
    },
];

fn rng(host: &mut Host<'_>) -> anyhow::Result<()> {
    for &platform in Platform::of(host.arch) {
        let guest = Guest {
            emulated: vec!["[rng]".to_owned()],
            ..Guest::debian(platform, &[Step::Rng])
        };
        let run = host.boot(&guest)?;
        run.expect_status(0)?;
        run.expect("rng_current", "virtio_rng.0")?;
        run.expect("rng_bytes", "8192")?;
        run.expect("rng_same", "0")?;
        ensure!(
            run.number("rng_packed")? > 8192,
            "the numbers are no random ones:\n{}",
            run.tail()
        );
    }
    Ok(())
}

fn console(host: &mut Host<'_>) -> anyhow::Result<()> {
    for &platform in Platform::of(host.arch) {
        let guest = Guest {
            emulated: vec!["[console]\ndevice = \"virtio\"".to_owned()],
            ..Guest::debian(platform, &[Step::Hvc])
        };
        let run = speaks(host, &guest)?;
        run.expect_status(0)?;
        run.expect("hvc", "1")?;
        run.expect("hvc_long", &"x".repeat(3000))?;
        run.expect("hvc_heard", "hello-from-the-host")?;
    }
    Ok(())
}

/// Boots a guest, and types a line when it has spoken.
fn speaks(host: &mut Host<'_>, guest: &Guest) -> anyhow::Result<Run> {
    let operator = Operator::new("@@ hvc_ready=1", "echo hello-from-the-host >&3");
    host.boot_beside(guest, &operator)
}

fn vsock(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        emulated: vec!["[vsock]\ncid = 42".to_owned()],
        ..Guest::debian(Platform::None, &[Step::Vsock, Step::Hold])
    };
    let does = format!(
        "until grep -q '@@ holding=1' ccvm-console; do sleep 0.2; done\n\
         {} run /run/ccvm-test.toml >second 2>&1; echo @@ second=$?\n\
         echo @@ code=$(grep -c CCVM0621 second)",
        host.ccvm
    );
    host.machine
        .read("nested vsock-echo 5000 >/run/vsock-echo 2>&1 & sleep 1")?;
    let operator = Operator::new("@@ init=1", &does);
    let run = host.boot_beside(&guest, &operator)?;
    run.expect_status(0)?;
    run.expect("vsock_status", "0")?;
    run.expect("vsock_bytes", "1048576")?;
    run.expect("vsock_same", "1")?;
    let peer = host.machine.read("cat /run/vsock-echo")?;
    ensure!(peer.contains("peer=42"), "the host heard from: {peer}");
    run.expect("second", "1")?;
    run.expect("code", "1")
}

fn refused(host: &mut Host<'_>) -> anyhow::Result<()> {
    for table in [
        "[vsock]\ncid = 43",
        "[[vhost-user]]\nkind = \"block\"\nsocket = \"/run/nobody\"",
    ] {
        let guest = Guest {
            emulated: vec![table.to_owned()],
            ..Guest::debian(Platform::Realm, &[])
        };
        let (status, report) = host.check(&guest)?;
        ensure!(status == 1, "ccvm check gave {status}: {report}");
        let codes = report["diagnostics"].to_string();
        ensure!(codes.contains("CCVM0630"), "{codes}");
    }
    let nobody = Guest {
        emulated: vec!["[[vhost-user]]\nkind = \"block\"\nsocket = \"/run/nobody\"".to_owned()],
        ..Guest::debian(Platform::None, &[])
    };
    let run = host.boot(&nobody)?;
    run.expect_status(1)?;
    ensure!(run.output.text.contains("CCVM0631"), "{}", run.tail());
    Ok(())
}
