//! What a start takes: to the guest's first instruction on each platform, and to its init.
#![expect(clippy::print_stdout, reason = "the figures go to standard output")]

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::case::{Guest, Host, Platform, within};
use crate::guest::Step;
use crate::machine::Script;

const CONFIG: &str = "/run/bench.toml";
const STATISTICS: &str = "/run/bench.json";

/// A guest that takes longer to turn itself off is ended.
const SECONDS: u32 = 400;

/// Launches of each platform, of which the median and both ends are told.
const LAUNCHES: usize = 5;

/// Prints those of the distribution's host.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    launches(host, &[Platform::None, Platform::Realm])?;
    println!("\nA guest of 512 MiB");
    for platform in [Platform::None, Platform::Realm] {
        let start = StartUp::measure(host, &Guest::debian(platform, &[Step::Facts]))?;
        println!("  {:20} {start}", platform.name());
    }
    Ok(())
}

/// What a start took.
pub(super) struct StartUp {
    to_first_ms: u64,
    to_init: Duration,
    own_mib: f64,
}

impl fmt::Display for StartUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            to_first_ms,
            to_init,
            own_mib,
        } = self;
        let to_init = to_init.as_secs_f64();
        write!(
            f,
            "first instruction after {to_first_ms:>6} ms, init after {to_init:>5.1} s, own memory {own_mib:.1} MiB"
        )
    }
}

impl StartUp {
    /// Starts this guest, and waits for it to turn itself off.
    pub(super) fn measure(host: &mut Host<'_>, guest: &Guest) -> anyhow::Result<Self> {
        let config = guest.config(host)?;
        host.machine.write(CONFIG, config.as_bytes())?;
        let run = format!("{} run {CONFIG} --stats {STATISTICS}", host.ccvm);
        let script = Script {
            text: format!("echo '@@ exec'; {}", within(SECONDS, &run)),
            limit: Duration::from_secs(u64::from(SECONDS) + 60),
        };
        let (mut exec, mut init) = (None, None);
        let output = host.machine.watch(&script, |line| match line.trim() {
            "@@ exec" => exec = Some(Instant::now()),
            line if line.contains("@@ init=1") => init = Some(Instant::now()),
            _ => {}
        })?;
        ensure!(
            output.status == 0,
            "ccvm run gave {}: {}",
            output.status,
            output.text
        );
        let stats = Statistics::read(host)?;
        let (exec, init) = exec.zip(init).context("the guest's init did not report")?;
        // Bytes of a process: far below 2^52, where a double counts exactly.
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let own_mib = stats.number("own_memory_bytes")? as f64 / f64::from(1 << 20);
        Ok(Self {
            to_first_ms: stats.number("exec_to_first_run_us")? / 1000,
            to_init: init.duration_since(exec),
            own_mib,
        })
    }
}

/// Prints how long these kinds of VM take to their first instruction, on one host, one after the other: the
/// distribution's kernel and initrd, 512 MiB, one vCPU.
pub(super) fn launches(host: &mut Host<'_>, platforms: &[Platform]) -> anyhow::Result<()> {
    println!("\nFrom exec to the guest's first instruction, {LAUNCHES} launches of 512 MiB each");
    println!("                          least    median      most");
    for platform in platforms {
        let mut times = Vec::new();
        for _ in 0..LAUNCHES {
            times.push(launch(host, *platform)?);
        }
        times.sort_unstable();
        let [least, .., most] = times[..] else {
            continue;
        };
        let median = times[LAUNCHES / 2];
        let name = platform.name();
        println!("  {name:20} {least:>7} ms{median:>7} ms{most:>7} ms");
    }
    Ok(())
}

/// Starts a guest, and ends it as soon as it has run. Milliseconds.
fn launch(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<u64> {
    let config = Guest::debian(platform, &[]).config(host)?;
    host.machine.write(CONFIG, config.as_bytes())?;
    let script = LAUNCH.replace("CCVM", &host.ccvm);
    let output = host.machine.run(&Script::boot(script))?;
    ensure!(
        output.status == 0,
        "the guest of {} does not run: {}",
        platform.name(),
        output.text
    );
    Ok(Statistics::read(host)?.number("exec_to_first_run_us")? / 1000)
}

/// A guest that has run has stopped for something. Who asks has to wait first: to ask takes time of the launch.
const LAUNCH: &str = r#"
socket=/run/bench.sock
rm -f $socket /run/bench.json
CCVM run /run/bench.toml --control $socket --stats /run/bench.json </dev/null >/run/bench.log 2>&1 &
process=$!
for _ in $(seq 60); do
    sleep 2
    CCVM ctl $socket metrics --format json 2>/dev/null | grep -qE '"exits":\{[^}]*:[1-9]' && break
done
CCVM ctl $socket stop >/dev/null 2>&1 || kill -KILL $process
wait $process
[ -s /run/bench.json ] || { cat /run/bench.log; exit 1; }
"#;

/// What ccvm has counted.
struct Statistics(Value);

impl Statistics {
    fn read(host: &mut Host<'_>) -> anyhow::Result<Self> {
        let text = host.machine.read(&format!("cat {STATISTICS}"))?;
        let read = serde_json::from_str(&text).context("the statistics are not JSON")?;
        Ok(Self(read))
    }

    fn number(&self, key: &str) -> anyhow::Result<u64> {
        let number = self.0[key].as_u64();
        number.with_context(|| format!("no {key} in {}", self.0))
    }
}
