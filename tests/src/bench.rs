//! The figures that the project promises, from real runs.
#![expect(clippy::print_stdout, reason = "the figures go to standard output")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::bed::Bed;
use crate::case::{Guest, Host, Platform};
use crate::devices::Role;
use crate::guest::{Program, Step};
use crate::machine::Script;
use crate::prepare::{Prepared, repository};
use crate::progress;

/// Prints the figures of this machine: planning and checking.
///
/// # Errors
/// When the programs do not build or do not run.
pub fn of_this_machine() -> anyhow::Result<()> {
    let plan = plan_time()?;
    let check = check_time()?;
    println!("\nOn this machine, release build");
    println!("  plan, host of 256 devices             {plan}   (goal: under 1 ms)");
    println!(
        "  ccvm check, whole process             {:.2} ms   (goal: under 10 ms)",
        check.as_secs_f64() * 1e3
    );
    Ok(())
}

/// Criterion's estimate of the plan's time.
fn plan_time() -> anyhow::Result<String> {
    let output = progress::step("measure the plan", || {
        let mut cargo = cargo();
        cargo.args(["bench", "--quiet", "--package", "vmm", "--bench", "plan"]);
        let output = cargo.output().context("cannot start cargo")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    })?;
    estimate(&output).context("criterion printed no time")
}

/// The middle of `time: [LOW EST HIGH]`.
fn estimate(output: &str) -> Option<String> {
    let (_, times) = output.split_once("time:")?;
    let words: Vec<&str> = times.split_whitespace().take(4).collect();
    Some(format!("{} {}", words.get(2)?, words.get(3)?))
}

/// The median time of `ccvm check` on the recorded host of 256 devices.
fn check_time() -> anyhow::Result<Duration> {
    const RUNS: usize = 101;
    let ccvm = progress::step("build ccvm for this machine", || {
        let mut build = cargo();
        build.args(["build", "--quiet", "--release", "--package", "ccvm"]);
        let status = build.status().context("cannot start cargo")?;
        ensure!(status.success(), "ccvm does not build");
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        Ok(target
            .unwrap_or_else(|| repository().join("target"))
            .join("release/ccvm"))
    })?;
    let fixtures = repository().join("tests/fixtures");
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut check = Command::new(&ccvm);
        check.arg("check").arg(fixtures.join("configs/farm.toml"));
        check
            .arg("--host")
            .arg(fixtures.join("hosts/farm-256.json"));
        let start = Instant::now();
        let status = check
            .stdout(Stdio::null())
            .status()
            .context("cannot start ccvm")?;
        times.push(start.elapsed());
        ensure!(status.success(), "ccvm check gave {status}");
    }
    times.sort_unstable();
    times.get(RUNS / 2).copied().context("nothing was measured")
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository());
    cargo
}

/// Prints the figures of the testbed: starting, memory, conversion.
///
/// # Errors
/// When a guest does not run as it should.
pub fn in_testbed(prepared: &Prepared) -> anyhow::Result<()> {
    let mut bed = Bed::boot(prepared)?;
    let mut host = bed.host(false);
    let plain = start_up(&mut host, Platform::None)?;
    let realm = start_up(&mut host, Platform::Realm)?;
    println!(
        "\nIn the testbed (an emulated host), Debian {}, 512 MiB",
        prepared.guest.version
    );
    println!("                                        plain VM      Realm");
    let both = |name: &str, of: fn(&StartUp) -> String| {
        println!("  {name:36} {:>10} {:>10}", of(&plain), of(&realm));
    };
    both("exec to the first guest instruction", |start| {
        format!("{} ms", start.to_first_ms)
    });
    both("exec to the guest's init", |start| {
        format!("{:.1} s", start.to_init.as_secs_f64())
    });
    both("ccvm's own memory (goal: 5 MiB)", |start| {
        format!("{:.1} MiB", start.own_mib)
    });
    conversions(&mut host)
}

struct StartUp {
    to_first_ms: u64,
    to_init: Duration,
    own_mib: f64,
}

fn start_up(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<StartUp> {
    let guest = Guest::debian(platform, &[Step::Facts]);
    let config = guest.config(host)?;
    host.machine.write("/run/bench.toml", config.as_bytes())?;
    let script = Script::boot(format!(
        "echo '@@ exec'; {} run /run/bench.toml --stats /run/bench.json",
        host.ccvm
    ));
    let (mut exec, mut init) = (None, None);
    let output = host.machine.watch(&script, |line| match line.trim() {
        "@@ exec" => exec = Some(Instant::now()),
        line if line.starts_with("@@ init=1") => init = Some(Instant::now()),
        _ => {}
    })?;
    ensure!(
        output.status == 0,
        "ccvm run gave {}: {}",
        output.status,
        output.text
    );
    let stats: Value = serde_json::from_str(&host.machine.read("cat /run/bench.json")?)
        .context("the statistics are not JSON")?;
    let number = |key: &str| {
        stats[key]
            .as_u64()
            .with_context(|| format!("no {key} in {stats}"))
    };
    let (exec, init) = exec.zip(init).context("the guest's init did not report")?;
    // Bytes of a process: far below 2^52, where a double counts exactly.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let own_mib = number("own_memory_bytes")? as f64 / f64::from(1 << 20);
    Ok(StartUp {
        to_first_ms: number("exec_to_first_run_us")? / 1000,
        to_init: init.duration_since(exec),
        own_mib,
    })
}

/// Conversions by the bare-metal guest, with a device whose DMA table follows.
fn conversions(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.bind(&[Role::WideEdu])?;
    let run = host.boot(&Guest {
        memory: "3072 MiB".to_owned(),
        devices: vec![(Role::WideEdu, Some(36))],
        ..Guest::new(Platform::Realm, Program::Payload("convert-bench"))
    })?;
    run.expect("result", "pass")?;
    println!("\nConversion of one extent, with one assigned device");
    println!("                                           share    unshare");
    for (name, size) in [("4k", "4 KiB"), ("2m", "2 MiB"), ("1g", "1 GiB")] {
        let share = run.number(&format!("share_{name}_us"))?;
        let unshare = run.number(&format!("unshare_{name}_us"))?;
        println!("  {size:36} {share:>7} µs {unshare:>7} µs");
    }
    let (shared, maps) = (run.converted("shared_extents")?, run.converted("dma_maps")?);
    let (private, unmaps) = (
        run.converted("private_extents")?,
        run.converted("dma_unmaps")?,
    );
    println!("  DMA table calls, for extents of any of these sizes (goal: a bounded number)");
    println!("    {maps} maps for {shared} extents that were shared");
    println!("    {unmaps} unmaps for {private} extents that were made private");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_criterions_three_times_is_the_estimate() {
        let output = "plan/farm  time:   [410.11 µs 412.03 µs 414.20 µs]\n change: ...";
        assert_eq!(estimate(output).as_deref(), Some("412.03 µs"));
    }
}
