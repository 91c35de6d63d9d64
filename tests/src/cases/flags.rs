//! A VM without a config file, and what it says to programs.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::ARM64;
use crate::case::{Case, Host, within};
use crate::machine::{Output, Script};

pub(super) const CASES: &[Case] = &[Case {
    name: "a_vm_that_flags_describe_runs_and_its_log_is_json",
    on: ARM64,
    needs: &[],
    run: flags,
}];

fn flags(host: &mut Host<'_>) -> anyhow::Result<()> {
    let vm = "--platform emulated-realm --memory 512MiB --vcpus 2";
    let boot = format!("--kernel {}/payload --cmdline test=facts", host.files);
    let run = format!(
        "CCVM_LOG=info {} run {vm} {boot} --log-format json >/run/flags.out 2>/run/flags.err",
        host.ccvm
    );
    let script = format!(
        "( {} ); status=$?; cat /run/flags.out; exit $status",
        within(60, &run)
    );
    let Output { status, text } = host.machine.run(&Script::boot(script))?;
    let log = host.machine.read("cat /run/flags.err")?;
    ensure!(status == 0, "ccvm run gave {status}: {text}\n{log}");
    ensure!(text.contains("result=pass"), "{text}\n{log}");
    let events: Vec<Value> = log
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("not only JSON: {log}"))?;
    let warned = events.iter().any(|event| event["code"] == "CCVM0450");
    ensure!(warned, "no word of what an emulated Realm is: {log}");
    let last = events.last().context("nothing was said")?;
    ensure!(
        last["target"] == "ending" && last["ending"] == "poweroff" && last["exit_code"] == 0,
        "{last}"
    );
    Ok(())
}
