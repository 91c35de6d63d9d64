//! An emulated disk whose storage on the host fails: the guest hears of it, and what it had flushed is there.

use anyhow::ensure;

use super::block::digest;
use crate::arch::{ARM64, EVERY};
use crate::case::{Case, Guest, Host, Platform};
use crate::guest::Step;
use crate::operator::Operator;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_host_file_system_that_is_full_is_an_io_error_and_loses_nothing_durable",
        on: EVERY,
        needs: &[],
        run: full,
    },
    Case {
        name: "storage_of_the_host_that_fails_in_places_is_an_io_error_there_and_nowhere_else",
        on: ARM64,
        needs: &[],
        run: failing,
    },
    Case {
        name: "storage_of_the_host_that_fails_for_a_while_is_an_io_error_then_and_loses_nothing_durable",
        on: ARM64,
        needs: &[],
        run: outage,
    },
];

fn full(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine.read(
        "mkdir -p /run/small && mount -t tmpfs -o size=6m none /run/small && \
         truncate -s 16777216 /run/small/disk",
    )?;
    let guest = Guest {
        emulated: vec!["[[disk]]\npath = \"/run/small/disk\"".to_owned()],
        ..Guest::debian(Platform::None, &[Step::Block, Step::BlockFill])
    };
    let run = host.boot(&guest)?;
    let kept = digest(host, "small/disk bs=1M count=1")?;
    host.machine.read("umount /run/small")?;
    run.expect_status(0)?;
    run.expect("fill_durable", "0")?;
    ensure!(
        run.number("fill_status")? != 0,
        "the guest did not hear of the error"
    );
    ensure!(run.number("fill_complaints")? > 0, "{}", run.tail());
    run.expect("fill_kept", "1")?;
    let durable = host
        .machine
        .read("yes 'durable' | head -c 1048576 | sha256sum")?;
    ensure!(
        durable.starts_with(&kept),
        "what the guest has flushed is not in the image"
    );
    Ok(())
}

/// A device of the host's device mapper, of which the range from 8 to 12 MiB is an error.
fn failing(host: &mut Host<'_>) -> anyhow::Result<()> {
    const GONE: &str =
        "dmsetup remove --noudevsync failing; losetup -d $(cat /run/failing.loop); true";
    host.require("dmsetup")?;
    host.machine.read(
        "loop=$(losetup -f) && echo $loop >/run/failing.loop && \
         truncate -s 16777216 /run/failing && losetup $loop /run/failing && \
         { echo 0 16384 linear $loop 0; echo 16384 8192 error; \
         echo 24576 8192 linear $loop 24576; } | dmsetup create --noudevsync failing && \
         dmsetup mknodes failing && [ -b /dev/mapper/failing ]",
    )?;
    let guest = Guest {
        emulated: vec!["[[disk]]\npath = \"/dev/mapper/failing\"".to_owned()],
        ..Guest::debian(Platform::None, &[Step::Block, Step::BlockError])
    };
    let run = host.boot(&guest);
    host.machine.read(GONE)?;
    let run = run?;
    run.expect_status(0)?;
    run.expect("error_durable", "0")?;
    for fails in ["error_read", "error_write"] {
        ensure!(run.number(fails)? != 0, "{fails}: {}", run.tail());
    }
    ensure!(run.number("error_complaints")? >= 2, "{}", run.tail());
    for works in ["error_kept1", "error_kept13"] {
        run.expect(works, "1")?;
    }
    run.expect("error_behind", "0")?;
    let durable = host
        .machine
        .read("yes 'durable' | head -c 1048576 | sha256sum")?;
    for at in [1, 13] {
        let there = digest(host, &format!("failing bs=1M skip={at} count=1"))?;
        ensure!(
            durable.starts_with(&there),
            "what was flushed at {at} MiB is not there"
        );
    }
    Ok(())
}

/// A device of the host's device mapper that is whole, then all errors, then whole again.
fn outage(host: &mut Host<'_>) -> anyhow::Result<()> {
    const GONE: &str =
        "dmsetup remove --noudevsync outage; losetup -d $(cat /run/outage.loop); true";
    host.require("dmsetup")?;
    host.machine.read(
        "loop=$(losetup -f) && echo $loop >/run/outage.loop && \
         truncate -s 16777216 /run/outage && losetup $loop /run/outage && \
         echo 0 32768 linear $loop 0 | dmsetup create --noudevsync outage && \
         dmsetup mknodes outage && [ -b /dev/mapper/outage ]",
    )?;
    let guest = Guest {
        emulated: vec!["[[disk]]\npath = \"/dev/mapper/outage\"".to_owned()],
        ..Guest::debian(Platform::None, &[Step::Block, Step::BlockOutage])
    };
    let does = "\
        becomes() { dmsetup reload outage --table \"$1\" && dmsetup resume --noudevsync outage; }\n\
        becomes '0 32768 error'; echo @@ failing=$?; echo >&3\n\
        until grep -q '@@ outage_seen=1' ccvm-console; do sleep 0.2; done\n\
        becomes \"0 32768 linear $(cat outage.loop) 0\"; echo @@ whole=$?";
    let operator = Operator::new("@@ outage_awaited=1", does);
    let run = host.boot_beside(&guest, &operator);
    host.machine.read(GONE)?;
    let run = run?;
    run.expect_status(0)?;
    run.expect("failing", "0")?;
    run.expect("whole", "0")?;
    run.expect("outage_durable", "0")?;
    for fails in ["outage_read", "outage_write"] {
        ensure!(run.number(fails)? != 0, "{fails}: {}", run.tail());
    }
    ensure!(run.number("outage_complaints")? >= 2, "{}", run.tail());
    run.expect("outage_after", "0")?;
    let durable = host
        .machine
        .read("yes 'durable' | head -c 1048576 | sha256sum")?;
    for at in [1, 13] {
        run.expect(&format!("outage_kept{at}"), "1")?;
        let there = digest(host, &format!("outage bs=1M skip={at} count=1"))?;
        ensure!(
            durable.starts_with(&there),
            "what was flushed at {at} MiB is not there"
        );
    }
    Ok(())
}
