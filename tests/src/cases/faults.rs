//! Host calls that fail, each in turn: what becomes of the VM, its message and the device.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};

use crate::arch::{ARM64, Arch, EVERY};
use crate::case::{Case, Guest, Host, Platform, in_one_line, within};
use crate::devices::Role;
use crate::guest::Program;
use crate::machine::{Output, Script};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "whatever_call_of_kvm_or_type1_fails_ccvm_says_which_and_the_device_is_free",
        on: EVERY,
        needs: &[Role::WideEdu],
        run: |host| {
            let test = match host.arch {
                Arch::Arm64 => "convert",
                Arch::X86_64 => "edu-highest-page",
            };
            every_call(
                host,
                &Walk {
                    dma_backend: "type1",
                    test,
                    devices: &[Role::WideEdu],
                    wanted: |_| true,
                    most_points: 12,
                },
            )
        },
    },
    Case {
        name: "a_guest_that_uses_up_the_mappings_of_type1_is_refused_and_lives_on",
        on: ARM64,
        needs: &[Role::WideEdu],
        run: too_many_mappings,
    },
];

/// `ENOMEM`: every call can give it.
const ERRNO: u32 = 12;
/// What ccvm logs when it makes a call fail.
const FAILED: &str = "is made to fail";
const CONFIG: &str = "/run/ccvm-fault.toml";

/// Which calls of which run are made to fail.
pub(super) struct Walk {
    pub(super) dma_backend: &'static str,
    /// What the bare-metal guest does.
    pub(super) test: &'static str,
    pub(super) devices: &'static [Role],
    /// Whether a call of this name is made to fail.
    pub(super) wanted: fn(&str) -> bool,
    /// A call that is made more often is tried at both ends and in the middle.
    pub(super) most_points: u32,
}

/// Makes each call fail, at each of its points.
pub(super) fn every_call(host: &mut Host<'_>, walk: &Walk) -> anyhow::Result<()> {
    host.bind(walk.devices)?;
    let devices = walk.devices.iter().map(|role| (*role, Some(36)));
    let guest = Guest {
        devices: devices.collect(),
        dma_backend: Some(walk.dma_backend),
        ..Guest::new(Platform::hardest(host.arch), Program::Payload(walk.test))
    };
    let config = guest.config(host)?;
    host.machine.write(CONFIG, config.as_bytes())?;
    let (listed, _) = watched(host, "--debug-list-host-calls")?;
    passes(&listed).context("without a failure")?;
    let calls = counted(&listed.text);
    let calls: Vec<_> = calls
        .iter()
        .filter(|(call, _)| (walk.wanted)(call))
        .collect();
    ensure!(!calls.is_empty(), "no host call was listed");
    let (mut failed, mut wrong) = (0, Vec::new());
    for (call, count) in calls {
        let before = failed;
        for nth in points(*count, walk.most_points) {
            let fault = format!("--debug-fail-host-call '{call}:{nth}:{ERRNO}'");
            let (output, refused) = watched(host, &fault)?;
            let judged = judge(call, &output).and_then(|()| only_provoked(&output, &refused));
            if let Err(complaint) = judged {
                wrong.push(format!("{call} {nth} of {count}: {complaint:#}"));
            }
            failed += u32::from(output.text.contains(FAILED));
        }
        // Runs differ: a fault of DMA that the host's kernel logs ends what another run goes on with.
        ensure!(failed > before, "{call} was never made to fail");
    }
    crate::progress::note(&format!("{failed} host calls made to fail"));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (after, _) = watched(host, "")?;
    passes(&after).context("the device or the host is no longer usable")?;
    let left = host.machine.read("pidof ccvm || true")?;
    ensure!(left.is_empty(), "ccvm is still there: {left}");
    host.unbind(walk.devices)
}

fn passes(output: &Output) -> anyhow::Result<()> {
    let good = output.status == 0 && output.text.contains("result=pass");
    ensure!(good, "ccvm gave {}:\n{}", output.status, output.text);
    Ok(())
}

/// A run, and the pages at which the host's IOMMU has refused accesses of devices meanwhile.
fn watched(host: &mut Host<'_>, options: &str) -> anyhow::Result<(Output, BTreeSet<u64>)> {
    let mark = "a guest of the tests starts";
    host.machine.read(&format!("echo '{mark}' >/dev/kmsg"))?;
    let output = run(host, options)?;
    let (word, place) = match host.arch {
        Arch::Arm64 => ("F_TRANSLATION", "iova: 0x"),
        Arch::X86_64 => ("DMAR: .*fault addr", "fault addr 0x"),
    };
    let log = host.machine.read(&format!(
        "dmesg | tac | sed '/{mark}/q' | grep '{word}' || true"
    ))?;
    let refused = log.lines().map(|line| refused_page(line, place));
    Ok((output, refused.collect::<anyhow::Result<_>>()?))
}

/// The page in the kernel's message about a fault, after this word: `... iova: 0xc4000010 ipa: 0x0`.
fn refused_page(message: &str, place: &str) -> anyhow::Result<u64> {
    let address = message.split_once(place).map(|(_, rest)| rest);
    let digits = address.and_then(|rest| rest.split(' ').next());
    let address = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    address
        .map(|address| address & !0xfff)
        .with_context(|| format!("no address in \"{message}\""))
}

/// Whether nothing was refused but what the guest has said that it provokes.
fn only_provoked(output: &Output, refused: &BTreeSet<u64>) -> anyhow::Result<()> {
    let pages = output.text.lines().filter_map(|line| {
        let (_, page) = line.split_once("refused_page=0x")?;
        u64::from_str_radix(page.trim(), 16).ok()
    });
    let provoked: BTreeSet<u64> = pages.collect();
    let others: Vec<_> = refused.difference(&provoked).collect();
    ensure!(
        others.is_empty(),
        "accesses of devices were refused at {others:x?}"
    );
    Ok(())
}

fn run(host: &mut Host<'_>, options: &str) -> anyhow::Result<Output> {
    // The guest's console and ccvm's words would be mixed on one stream, letter by letter.
    let command = format!(
        "CCVM_LOG=info {} run {CONFIG} {options} >/run/fault.out 2>/run/fault.err",
        host.ccvm
    );
    host.machine.run(&Script::quick(format!(
        "( {} ); status=$?; cat /run/fault.out /run/fault.err; exit $status",
        within(60, &command)
    )))
}

/// How often each call was made.
fn counted(log: &str) -> BTreeMap<String, u32> {
    let mut calls = BTreeMap::new();
    for line in log.lines() {
        let call = line.split_once("host call ").map(|(_, call)| call);
        let Some((name, count)) = call.and_then(|call| call.trim_end().rsplit_once(' ')) else {
            continue;
        };
        if let Ok(count) = count.parse() {
            calls.insert(name.to_owned(), count);
        }
    }
    calls
}

/// Which of `count` calls are made to fail, in turn.
fn points(count: u32, most: u32) -> BTreeSet<u32> {
    if count <= most {
        return (1..=count).collect();
    }
    // The last ones of a call that is made all the time may not come in another run.
    BTreeSet::from([1, 2, 3, count / 2, count * 3 / 4])
}

fn judge(call: &str, output: &Output) -> anyhow::Result<()> {
    let text = &output.text;
    ensure!(!text.contains("panicked"), "ccvm panicked:\n{text}");
    ensure!(
        [0, 1, 6].contains(&output.status),
        "ccvm gave {}:\n{text}",
        output.status
    );
    let words = text.lines().filter(|line| !line.contains("host call "));
    let words = in_one_line(&words.collect::<Vec<_>>().join(" "));
    // A VM that goes on has lost nothing that its operator must know.
    ensure!(
        output.status == 0 || words.contains(call),
        "the message does not name the call:\n{text}"
    );
    Ok(())
}

/// A guest shares every second page until the host's table is full.
fn too_many_mappings(host: &mut Host<'_>) -> anyhow::Result<()> {
    const LIMIT: u64 = 1000;
    const PARAMETER: &str = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    host.bind(&[Role::WideEdu])?;
    let guest = Guest {
        memory: "1024 MiB".to_owned(),
        devices: vec![(Role::WideEdu, Some(36))],
        ..Guest::new(Platform::Realm, Program::Payload("fragment"))
    };
    let before = host.machine.read(&format!("cat {PARAMETER}"))?;
    host.machine.read(&format!("echo {LIMIT} >{PARAMETER}"))?;
    let outcome = fill_up(host, &guest, LIMIT);
    host.machine.read(&format!("echo {before} >{PARAMETER}"))?;
    outcome?;
    host.unbind(&[Role::WideEdu])
}

fn fill_up(host: &mut Host<'_>, guest: &Guest, limit: u64) -> anyhow::Result<()> {
    let (status, report) = host.check(guest)?;
    ensure!(status == 0, "{report}");
    let mut findings = report["diagnostics"].as_array().into_iter().flatten();
    let warning = findings
        .find(|finding| finding["code"] == "CCVM0538")
        .with_context(|| format!("no warning of the limit: {report}"))?;
    let message = warning["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("262144") && message.contains(&limit.to_string()),
        "{message}"
    );
    let run = host.boot(guest)?;
    // The payload has seen that a refused page keeps its content, and that it can go on afterwards.
    run.expect("result", "pass")?;
    let shared = run.number("shared_pages")?;
    ensure!(
        (limit / 2..=limit).contains(&shared),
        "{shared} pages were shared, with a limit of {limit}"
    );
    ensure!(run.converted("refused")? > 0, "no conversion was refused");
    ensure!(run.converted("damaged")? == 0, "a conversion did damage");
    run.expect_status(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_their_names() {
        let log = "INFO host call open /dev/kvm 1\nINFO host call KVM_RUN 1\n\
                   INFO host call KVM_RUN 2\nhost call X 3 is made to fail\n";
        let calls = counted(log);
        assert_eq!(calls.len(), 2);
        assert_eq!((calls["open /dev/kvm"], calls["KVM_RUN"]), (1, 2));
        assert_eq!(points(3, 12), BTreeSet::from([1, 2, 3]));
        assert_eq!(points(400, 12), BTreeSet::from([1, 2, 3, 200, 300]));
    }
}
