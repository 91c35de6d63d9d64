//! Device interfaces: a guest accepts its device, and what that changes for the device.

use anyhow::ensure;

use crate::arch::ARM64;
use crate::case::{Case, Guest, Host, Platform, Skip};
use crate::devices::Role;
use crate::guest::{Program, Step};
use crate::operator::Operator;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "of_two_devices_the_accepted_one_reaches_private_pages_and_both_the_shared_one",
        on: ARM64,
        needs: &[Role::WideEdu, Role::SecondEdu],
        run: one_of_two,
    },
    Case {
        name: "a_disk_that_was_accepted_behind_its_guests_back_works_because_of_the_mirror",
        on: ARM64,
        needs: &[Role::Nvme],
        run: mirror,
    },
    Case {
        name: "a_busy_disk_is_accepted_and_stopped_a_hundred_times_and_loses_no_byte",
        on: ARM64,
        needs: &[Role::Nvme],
        run: |host| turns(host, 100),
    },
];

/// Faults that the host's IOMMU has reported of a device.
fn faults(host: &mut Host<'_>, role: Role) -> anyhow::Result<u32> {
    let address = host.address(role)?;
    host.refused_accesses(Some(&address))
}

/// Of two devices one is accepted by its guest, and stopped again.
pub(super) fn one_of_two(host: &mut Host<'_>) -> anyhow::Result<()> {
    let both = [Role::WideEdu, Role::SecondEdu];
    host.bind(&both)?;
    host.await_fault_log()?;
    let before = faults(host, Role::SecondEdu)?;
    let run = host.boot(&Guest {
        devices: both.map(|role| (role, Some(36))).to_vec(),
        ..Guest::new(Platform::Realm, Program::Payload("vdev"))
    })?;
    run.expect("side_by_side", "ok")?;
    run.expect("stopped", "ok")?;
    run.expect("failed", "ok")?;
    run.expect("result", "pass")?;
    run.expect_status(0)?;
    let said = "proves nothing about a device's identity";
    ensure!(
        run.output.text.contains(said),
        "ccvm does not say who plays the TSM"
    );
    let after = faults(host, Role::SecondEdu)?;
    ensure!(
        after > before,
        "the host's IOMMU reported no fault of the other device"
    );
    host.unbind(&both)
}

/// An unmodified kernel that writes a disk and checks it until it is told to stop.
fn busy_guest(host: &mut Host<'_>, disk: Role) -> anyhow::Result<Guest> {
    if !host.is_scratch(disk)? {
        return Err(Skip("the disk's content must not be destroyed".to_owned()).into());
    }
    host.bind(&[disk])?;
    let steps = [Step::Facts, Step::Disk, Step::Churn, Step::Unload];
    Ok(Guest {
        devices: vec![(disk, Some(36))],
        ..Guest::debian(Platform::converting(host.arch), &steps)
    })
}

/// Locks and starts device `$device`, and counts the guest's rounds from then on.
const ACCEPT: &str = "ctl tdi lock $device && ctl tdi start $device --format json\n\
     before=$(rounds)\n";

/// The guest's kernel knows nothing of the acceptance and bounces through shared pages. Without the
/// mirror the same I/O faults.
fn mirror(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = busy_guest(host, Role::Nvme)?;
    let address = host.address(Role::Nvme)?;
    let operator = |options, does| {
        let does = format!("device={address}\n{ACCEPT}{does}");
        (options, does)
    };
    let (options, does) = operator(
        "",
        "for _ in $(seq 300); do [ $(rounds) -ge $((before + 5)) ] && break; sleep 0.2; done\n\
         echo @@ rounds_in_run=$(($(rounds) - before)); ctl tdi report $device; ctl verify\n\
         echo @@ verified=$?",
    );
    let run = host.boot_beside(&guest, &beside(options, &does))?;
    run.expect_status(0)?;
    run.expect("bounces", "1")?;
    run.expect("wrong", "0")?;
    run.expect("io_complaints", "0")?;
    run.expect("verified", "0")?;
    let (in_run, text) = (run.number("rounds_in_run")?, &run.output.text);
    ensure!(in_run >= 5, "only {in_run} rounds in RUN:\n{}", run.tail());
    ensure!(
        text.contains("\"state\":\"RUN\""),
        "not in RUN:\n{}",
        run.tail()
    );

    let before = faults(host, Role::Nvme)?;
    let (options, does) = operator(
        "--debug-leave-out-mirror",
        "sleep 20\necho @@ rounds_in_run=$(($(rounds) - before)); ctl stop",
    );
    let run = host.boot_beside(&guest, &beside(options, &does))?;
    run.expect_status(ENDED_BY_CTL)?;
    // One may have been on its way.
    let in_run = run.number("rounds_in_run")?;
    ensure!(in_run <= 1, "{in_run} rounds without the mirror");
    let after = faults(host, Role::Nvme)?;
    ensure!(after > before, "the host's IOMMU reported no fault");
    host.unbind(&[Role::Nvme])
}

/// Exit status of a run that `ccvm ctl stop` has ended.
const ENDED_BY_CTL: i32 = 7;

fn beside<'a>(options: &'a str, does: &'a str) -> Operator<'a> {
    Operator {
        options,
        ..Operator::new("@@ round=1 ", does)
    }
}

/// A busy disk is accepted and stopped so many times, and nothing is lost.
pub(super) fn turns(host: &mut Host<'_>, turns: u32) -> anyhow::Result<()> {
    let guest = busy_guest(host, Role::Nvme)?;
    let address = host.address(Role::Nvme)?;
    let does = format!(
        "device={address}; turns=0; before=$(rounds)\n\
         took() {{ sed 's/.*\"took_us\":\\([0-9]*\\).*/\\1/'; }}\n\
         while [ $turns -lt {turns} ]; do\n\
         ctl tdi lock $device >/dev/null || break\n\
         start=$(ctl tdi start $device --format json) || break\n\
         stop=$(ctl tdi stop $device --format json) || break\n\
         turns=$((turns + 1))\n\
         echo @@ accept_us=$(echo \"$start\" | took) stop_us=$(echo \"$stop\" | took)\n\
         done\n\
         echo @@ turns=$turns rounds=$(($(rounds) - before)); ctl verify; echo @@ verified=$?"
    );
    let operator = Operator {
        seconds: 600,
        ..beside("", &does)
    };
    let run = host.boot_beside(&guest, &operator)?;
    run.expect_status(0)?;
    run.expect("turns", &turns.to_string())?;
    run.expect("wrong", "0")?;
    run.expect("io_complaints", "0")?;
    run.expect("verified", "0")?;
    let rounds = run.number("rounds")?;
    ensure!(
        rounds >= u64::from(turns / 10),
        "the disk hardly worked: {rounds} rounds"
    );
    for way in ["accept_us", "stop_us"] {
        crate::progress::note(&format!("{way}: {}", spread(&run.output.text, way)));
    }
    host.unbind(&[Role::Nvme])
}

/// The median and the greatest of the values that a fact had.
fn spread(text: &str, key: &str) -> String {
    let words = text.split_whitespace();
    let values = words.filter_map(|word| word.split_once('='));
    let values = values.filter(|(name, _)| *name == key);
    let mut values: Vec<u64> = values.filter_map(|(_, value)| value.parse().ok()).collect();
    values.sort_unstable();
    let nth = |at: usize| values.get(at).copied().unwrap_or_default();
    let (median, most) = (nth(values.len() / 2), nth(values.len().saturating_sub(1)));
    format!("median {median}, most {most}, of {}", values.len())
}
