//! A VM test and what it needs of its host.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::devices::{Backing, Device, Role};
use crate::guest::{Program, Step};
use crate::machine::{Machine, Output, Script};

/// A test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is true when it passes.
    pub name: &'static str,
    /// The devices without which it cannot run.
    pub needs: &'static [Role],
    /// Runs it.
    pub run: fn(&mut Host<'_>) -> anyhow::Result<()>,
}

/// A reason not to run, as an error that a case returns.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome", content = "reason")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// With this complaint.
    Failed(String),
    /// It did not run, for this reason.
    Skipped(String),
}

/// A test's result.
#[derive(Debug, Clone, Serialize)]
pub struct Result {
    /// The test's name.
    pub name: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub took: Duration,
}

fn seconds<S: serde::Serializer>(
    took: &Duration,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 10.0).round() / 10.0)
}

impl Case {
    /// The result of not running the test.
    #[must_use]
    pub fn skipped(&self, reason: &str) -> Result {
        let outcome = Outcome::Skipped(reason.to_owned());
        Result {
            name: self.name,
            outcome,
            took: Duration::ZERO,
        }
    }

    /// Runs the test on a host, or says why it cannot run there.
    pub fn run_on(&self, host: &mut Host<'_>) -> Result {
        let start = Instant::now();
        let missing = self.needs.iter().find(|role| host.find(**role).is_none());
        let outcome = match missing {
            Some(role) => Outcome::Skipped(format!("the host has not {}", role.name())),
            None => match (self.run)(host) {
                Ok(()) => Outcome::Passed,
                Err(error) => match error.downcast::<Skip>() {
                    Ok(Skip(reason)) => Outcome::Skipped(reason),
                    Err(error) => Outcome::Failed(format!("{error:#}")),
                },
            },
        };
        Result {
            name: self.name,
            outcome,
            took: start.elapsed(),
        }
    }
}

/// The host as tests use it.
#[derive(Debug)]
pub struct Host<'a> {
    /// Where scripts run.
    pub machine: &'a mut Machine,
    /// The devices that may be used.
    pub devices: Vec<Device>,
    /// Addresses of disks whose content the tests may destroy.
    pub scratch: Vec<String>,
    /// The other ends of the devices; only the testbed has them.
    pub backing: Option<Backing>,
    /// The `ccvm` command on the host.
    pub ccvm: String,
    /// The folder on the host with `Image`, `Image.gz` and `guest.cpio`.
    pub files: String,
    /// Whether to show the guest's console as it comes.
    pub show_console: bool,
}

/// A shell script that ends a command which takes longer than some seconds.
#[must_use]
pub fn within(seconds: u32, command: &str) -> String {
    format!(
        "{command} & command=$!\n\
         {{ sleep {seconds}; kill $command; sleep 5; kill -KILL $command; }} >/dev/null 2>&1 & \
         watchdog=$!\n\
         wait $command; status=$?\n\
         kill $watchdog\n\
         exit $status"
    )
}

/// A text without its line breaks: messages are wrapped for their readers.
#[must_use]
pub fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A guest that runs longer is ended.
const GUEST_SECONDS: u32 = 200;

impl Host<'_> {
    fn find(&self, role: Role) -> Option<&Device> {
        self.devices.iter().find(|device| device.role == role)
    }

    /// The PCI address of a device.
    ///
    /// # Errors
    /// When the host does not have it.
    pub fn address(&self, role: Role) -> anyhow::Result<String> {
        let device = self
            .find(role)
            .with_context(|| format!("the host has not {}", role.name()))?;
        Ok(device.address.clone())
    }

    /// The other ends of the devices.
    ///
    /// # Errors
    /// Skips the test where they cannot be had.
    pub fn backing(&self) -> anyhow::Result<Backing> {
        let skip = || Skip("the other end of the device is not this harness's".to_owned());
        Ok(self.backing.clone().ok_or_else(skip)?)
    }

    /// Runs `ccvm` with arguments.
    ///
    /// # Errors
    /// When the machine dies; a refusal is no error.
    pub fn ccvm(&mut self, arguments: &str) -> anyhow::Result<Output> {
        let script = Script::quick(format!("{} {arguments}", self.ccvm));
        self.machine.run(&script)
    }

    /// Hands devices to VFIO.
    ///
    /// # Errors
    /// When `ccvm device bind` refuses.
    pub fn bind(&mut self, roles: &[Role]) -> anyhow::Result<()> {
        for role in roles {
            let address = self.address(*role)?;
            let output = self.ccvm(&format!("device bind {address}"))?;
            ensure!(
                output.status == 0,
                "ccvm device bind {address}: {}",
                output.text
            );
        }
        Ok(())
    }

    /// Gives devices back to the drivers that they had.
    ///
    /// # Errors
    /// When `ccvm device unbind` refuses.
    pub fn unbind(&mut self, roles: &[Role]) -> anyhow::Result<()> {
        for role in roles {
            let address = self.address(*role)?;
            let output = self.ccvm(&format!("device unbind {address}"))?;
            ensure!(
                output.status == 0,
                "ccvm device unbind {address}: {}",
                output.text
            );
        }
        Ok(())
    }

    /// Whether a disk's content may be destroyed.
    ///
    /// # Errors
    /// When the host does not have it.
    pub fn is_scratch(&self, role: Role) -> anyhow::Result<bool> {
        Ok(self.scratch.contains(&self.address(role)?))
    }

    /// What `ccvm check` says of a guest on this host, and its exit status.
    ///
    /// # Errors
    /// When it prints no report.
    pub fn check(&mut self, guest: &Guest) -> anyhow::Result<(i32, Value)> {
        let config = guest.config(self)?;
        self.machine
            .write("/run/ccvm-check.toml", config.as_bytes())?;
        let output = self.ccvm("check /run/ccvm-check.toml --format json")?;
        let report = serde_json::from_str(&output.text)
            .with_context(|| format!("ccvm check printed no report: {}", output.text))?;
        Ok((output.status, report))
    }

    /// Checks that a guest is accepted, at this IPA size, because of this device.
    ///
    /// # Errors
    /// When `ccvm check` says something else.
    pub fn expect_plan(
        &mut self,
        guest: &Guest,
        ipa_bits: u8,
        limited_by: Role,
    ) -> anyhow::Result<()> {
        let (status, report) = self.check(guest)?;
        ensure!(status == 0, "ccvm check gave {status}: {report}");
        ensure!(report["verdict"] == "accepted", "{report}");
        ensure!(
            report["ipa_bits"] == ipa_bits,
            "not IPA {ipa_bits}: {report}"
        );
        ensure!(report["shared_bit"] == ipa_bits - 1, "{report}");
        let limited_by = self.address(limited_by)?;
        ensure!(
            report["limited_by"] == limited_by.as_str(),
            "not by {limited_by}: {report}"
        );
        Ok(())
    }

    /// Boots a guest and waits for its end.
    ///
    /// # Errors
    /// When the machine dies or the guest does not end; how it ends is for the test to judge.
    pub fn boot(&mut self, guest: &Guest) -> anyhow::Result<Run> {
        let config = guest.config(self)?;
        self.machine
            .write("/run/ccvm-test.toml", config.as_bytes())?;
        let options = guest
            .ipa_bits
            .map(|bits| format!("--override-ipa-bits {bits}"));
        let options = options.unwrap_or_default();
        let script = Script::boot(format!(
            "rm -f /run/ccvm-stats.json\n{}",
            within(
                GUEST_SECONDS,
                &format!(
                    "{} run /run/ccvm-test.toml --stats /run/ccvm-stats.json {options}",
                    self.ccvm
                )
            )
        ));
        let show = self.show_console;
        let output = self.machine.watch(&script, |line| {
            if show {
                crate::progress::note(line);
            }
        })?;
        let stats = self
            .machine
            .run(&Script::quick("cat /run/ccvm-stats.json"))?;
        Ok(Run {
            facts: guest.program.facts(&output.text),
            stats: serde_json::from_str(&stats.text).unwrap_or_default(),
            output,
        })
    }
}

/// The kinds of VM under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// A plain VM.
    None,
    /// An emulated Realm.
    Realm,
}

impl Platform {
    /// The name in a config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Realm => "emulated-realm",
        }
    }
}

/// A guest to boot.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The kind of VM.
    pub platform: Platform,
    /// Processors.
    pub vcpus: u32,
    /// Memory, as in a config.
    pub memory: String,
    /// What it boots.
    pub program: Program,
    /// Assigned devices, with the operator's word on their width.
    pub devices: Vec<(Role, Option<u8>)>,
    /// `--override-ipa-bits`.
    pub ipa_bits: Option<u8>,
}

impl Guest {
    /// A guest of 512 MiB with one processor and no devices.
    #[must_use]
    pub fn new(platform: Platform, program: Program) -> Self {
        Self {
            platform,
            vcpus: 1,
            memory: "512 MiB".to_owned(),
            program,
            devices: Vec::new(),
            ipa_bits: None,
        }
    }

    /// Debian, doing some steps and then powering off.
    #[must_use]
    pub fn debian(platform: Platform, steps: &[Step]) -> Self {
        Self::new(platform, Program::debian(steps))
    }

    /// The guest's config file.
    ///
    /// # Errors
    /// When the host lacks a device.
    pub fn config(&self, host: &Host<'_>) -> anyhow::Result<String> {
        let mut config = format!(
            "[vm]\nplatform = \"{}\"\nvcpus = {}\nmemory = \"{}\"\n\n{}",
            self.platform.name(),
            self.vcpus,
            self.memory,
            self.program.boot_section(&host.files)
        );
        for (role, bits) in &self.devices {
            config += &format!("\n[[device]]\npci = \"{}\"\n", host.address(*role)?);
            if let Some(bits) = bits {
                config += &format!("dma-bits = {bits}\n");
            }
        }
        Ok(config)
    }
}

/// A guest's run, seen from both sides.
#[derive(Debug, Clone)]
pub struct Run {
    /// What ccvm and the guest's console printed, and ccvm's exit status.
    pub output: Output,
    /// What the guest reported.
    pub facts: BTreeMap<String, String>,
    /// What ccvm counted; null when it wrote nothing.
    pub stats: Value,
}

impl Run {
    /// A fact that the guest reported.
    ///
    /// # Errors
    /// When it did not, with the end of its console.
    pub fn fact(&self, key: &str) -> anyhow::Result<&str> {
        let fact = self.facts.get(key).map(String::as_str);
        fact.with_context(|| format!("the guest did not report {key}:\n{}", self.tail()))
    }

    /// A fact that is a number.
    ///
    /// # Errors
    /// When it was not reported or is no number.
    pub fn number(&self, key: &str) -> anyhow::Result<u64> {
        let fact = self.fact(key)?;
        fact.parse()
            .with_context(|| format!("the guest reported {key}={fact}"))
    }

    /// Checks a fact.
    ///
    /// # Errors
    /// When the guest reported something else.
    pub fn expect(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let fact = self.fact(key)?;
        ensure!(
            fact == value,
            "the guest reported {key}={fact}, not {value}:\n{}",
            self.tail()
        );
        Ok(())
    }

    /// One of ccvm's counts of page conversions.
    ///
    /// # Errors
    /// When ccvm did not write it.
    pub fn converted(&self, what: &str) -> anyhow::Result<u64> {
        let count = self.stats["conversions"][what].as_u64();
        count.with_context(|| format!("ccvm did not count {what}: {}", self.stats))
    }

    /// Checks ccvm's exit status.
    ///
    /// # Errors
    /// When it is another.
    pub fn expect_status(&self, status: i32) -> anyhow::Result<()> {
        let is = self.output.status;
        ensure!(
            is == status,
            "ccvm run gave {is}, not {status}:\n{}",
            self.tail()
        );
        Ok(())
    }

    /// The end of the console.
    #[must_use]
    pub fn tail(&self) -> String {
        const SHOWN: usize = 25;
        let lines: Vec<&str> = self.output.text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}
