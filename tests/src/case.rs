//! A VM test and what it needs of its host.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::arch::Arch;
use crate::devices::{Backing, Device, Role};
use crate::guest::{Program, Step};
use crate::machine::{Machine, Output, Script};
pub use crate::outcome::{Cannot, Outcome, Result, Skip};
pub use crate::platform::Platform;

/// A test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is true when it passes.
    pub name: &'static str,
    /// The architectures of the hosts that it is for.
    pub on: &'static [Arch],
    /// The devices without which it cannot run.
    pub needs: &'static [Role],
    /// Runs it.
    pub run: fn(&mut Host<'_>) -> anyhow::Result<()>,
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
            first: None,
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
                Err(error) => Outcome::of(&error),
            },
        };
        Result {
            name: self.name,
            outcome,
            took: start.elapsed(),
            first: None,
        }
    }
}

/// The host as tests use it.
#[derive(Debug)]
pub struct Host<'a> {
    /// Its architecture, and so its guests'.
    pub arch: Arch,
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
    /// The folder on the host with the files that guests boot from.
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

/// What ccvm says when KVM has given a vCPU up and goes on with it: worth to be seen, and no failure.
const TRIED_AGAIN: &str = "it is run once more";

/// A guest that runs longer is ended.
const GUEST_SECONDS: u32 = 200;
/// What ccvm says, apart from its guest.
const ERRORS: &str = "/run/ccvm-errors";

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

    /// Checks that the host has a program.
    ///
    /// # Errors
    /// Skips the test where it does not.
    pub fn require(&mut self, program: &str) -> anyhow::Result<()> {
        let there = Script::quick(format!("command -v {program}"));
        match self.machine.run(&there)?.status {
            0 => Ok(()),
            _ => Err(Skip(format!("the host has no {program}")).into()),
        }
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

    /// The launch measurement that `ccvm measure` foretells for a guest, from recorded facts of this host.
    ///
    /// # Errors
    /// When it does not.
    pub fn foretell(&mut self, guest: &Guest) -> anyhow::Result<String> {
        const CONFIG: &str = "/run/ccvm-measure.toml";
        const FACTS: &str = "/run/ccvm-measure.json";
        let config = guest.config(self)?;
        self.machine.write(CONFIG, config.as_bytes())?;
        let recorded = self.ccvm(&format!("host --json >{FACTS}"))?;
        ensure!(recorded.status == 0, "no host facts: {}", recorded.text);
        let output = self.ccvm(&format!("measure {CONFIG} --host {FACTS} --format json"))?;
        ensure!(output.status == 0, "ccvm measure: {}", output.text);
        let report: Value = serde_json::from_str(&output.text)
            .with_context(|| format!("ccvm measure printed no report: {}", output.text))?;
        let measurement = &report["measurement"];
        ensure!(
            measurement["register"] == "realm-initial-measurement",
            "another register: {report}"
        );
        let digest = measurement["digest"].as_str();
        Ok(digest
            .with_context(|| format!("no digest: {report}"))?
            .to_owned())
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
        let run = self.run_command(guest)?;
        self.boot_by(guest, &Script::boot(within(GUEST_SECONDS, &run)))
    }

    /// As [`Self::boot`], and asks `ccvm ctl` these things about every second meanwhile; returns the
    /// responses, too.
    ///
    /// # Errors
    /// As [`Self::boot`].
    pub fn boot_asking(
        &mut self,
        guest: &Guest,
        questions: &[&str],
    ) -> anyhow::Result<(Run, Vec<Value>)> {
        const SOCKET: &str = "/run/ccvm-test.socket";
        const ANSWERS: &str = "/run/ccvm-answers";
        let ccvm = self.ccvm.clone();
        let ask = |question: &&str| format!("{ccvm} ctl {SOCKET} {question} --format json; ");
        let asks: String = questions.iter().map(ask).collect();
        let run = format!("{} --control {SOCKET}", self.run_command(guest)?);
        let run = within(GUEST_SECONDS, &run);
        let script = format!(
            "rm -f {SOCKET} {ANSWERS}\n\
             {{ while sleep 1; do [ -S {SOCKET} ] && {{ {asks} }}; done; }} \
             >{ANSWERS} 2>/dev/null & asker=$!\n\
             ({run}); status=$?\n\
             kill $asker\n\
             exit $status"
        );
        let run = self.boot_by(guest, &Script::boot(script))?;
        let answers = self.machine.read(&format!("cat {ANSWERS}"))?;
        let answers = answers
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok((run, answers.collect()))
    }

    /// The command that runs a guest, with its config in place.
    pub(crate) fn run_command(&mut self, guest: &Guest) -> anyhow::Result<String> {
        let config = guest.config(self)?;
        self.machine
            .write("/run/ccvm-test.toml", config.as_bytes())?;
        let options = guest
            .ipa_bits
            .map(|bits| format!("--override-ipa-bits {bits}"));
        // On one stream ccvm's words come in the middle of the guest's: fine to watch, not to read.
        let errors = if self.show_console {
            String::new()
        } else {
            format!("2>{ERRORS}")
        };
        Ok(format!(
            "{} run /run/ccvm-test.toml --stats /run/ccvm-stats.json {} {errors}",
            self.ccvm,
            options.unwrap_or_default()
        ))
    }

    /// Boots a guest by a script that does so, and waits for the script's end.
    pub(crate) fn boot_by(&mut self, guest: &Guest, script: &Script) -> anyhow::Result<Run> {
        let text = format!("rm -f /run/ccvm-stats.json {ERRORS}\n{}", script.text);
        let limit = script.limit;
        let script = Script { text, limit };
        let show = self.show_console;
        let mut output = self.machine.watch(&script, |line| {
            if show {
                crate::progress::note(line);
            }
        })?;
        let errors = Script::quick(format!("cat {ERRORS} 2>/dev/null"));
        let said = self.machine.run(&errors)?.text;
        for line in said.lines().filter(|line| line.contains(TRIED_AGAIN)) {
            crate::progress::note(line);
        }
        output.text += &said;
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

/// What IOMMU a guest has in front of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestIommu {
    /// None.
    Absent,
    /// A virtio-iommu, while DMA is by guest-physical addresses.
    PassedThrough,
    /// A virtio-iommu that comes with devices whose DMA it translates.
    Translating,
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
    /// Emulated devices: tables of a config.
    pub emulated: Vec<String>,
    /// Its own IOMMU.
    pub iommu: GuestIommu,
    /// `--override-ipa-bits`.
    pub ipa_bits: Option<u8>,
    /// `[vm] dma-backend`.
    pub dma_backend: Option<&'static str>,
    /// `[vm] pkvm-device-dma`.
    pub pkvm_device_dma: Option<&'static str>,
    /// `[vm] hotplug-ports`.
    pub hotplug_ports: u8,
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
            emulated: Vec::new(),
            iommu: GuestIommu::Absent,
            ipa_bits: None,
            dma_backend: None,
            pkvm_device_dma: None,
            hotplug_ports: 0,
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
        let iommu = match self.iommu {
            GuestIommu::Absent => "none",
            GuestIommu::PassedThrough => "virtio",
            GuestIommu::Translating => "auto",
        };
        let backend = self.dma_backend.unwrap_or("auto");
        let isolation = self.pkvm_device_dma;
        let isolation = isolation.map(|word| format!("pkvm-device-dma = \"{word}\"\n"));
        let slots = (self.hotplug_ports > 0).then_some(self.hotplug_ports);
        let slots = slots.map(|ports| format!("hotplug-ports = {ports}\n"));
        let mut config = format!(
            "[vm]\nplatform = \"{}\"\nvcpus = {}\nmemory = \"{}\"\niommu = \"{iommu}\"\n\
             dma-backend = \"{backend}\"\n{}{}\n{}",
            self.platform.name(),
            self.vcpus,
            self.memory,
            isolation.unwrap_or_default(),
            slots.unwrap_or_default(),
            self.program.boot_section(&host.files)
        );
        for (role, bits) in &self.devices {
            config += &format!("\n[[device]]\npci = \"{}\"\n", host.address(*role)?);
            if let Some(bits) = bits {
                config += &format!("dma-bits = {bits}\n");
            }
            if self.iommu == GuestIommu::Translating {
                config += "dma = \"translated\"\n";
            }
        }
        for table in &self.emulated {
            config += &format!("\n{table}\n");
        }
        Ok(config)
    }
}

/// A guest's run, seen from both sides.
#[derive(Debug, Clone)]
pub struct Run {
    /// What the guest's console printed, then what ccvm said, and ccvm's exit status.
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
