//! The guest (L2): an unmodified Debian kernel and an initrd that runs steps and reports.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;

use crate::image::{Archive, load_order};
use crate::prepare::GuestFiles;

const INIT: &str = include_str!("init.sh");

/// What the guest can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Report the kernel, processors, RSI and swiotlb.
    Facts,
    /// Fetch an attestation token.
    Token,
    /// Read the disk.
    Disk,
    /// After [`Self::Disk`]: write it.
    Write,
    /// Bring the network card up.
    Link,
    /// After [`Self::Link`]: transfer 1 MiB each way.
    Transfer,
    /// Print the kernel's own lines on Realm, swiotlb and link.
    Show,
    /// Remove the device drivers.
    Unload,
}

impl Step {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Facts, include_str!("steps/facts.sh")),
        (Self::Token, include_str!("steps/token.sh")),
        (Self::Disk, include_str!("steps/disk.sh")),
        (Self::Write, include_str!("steps/write.sh")),
        (Self::Link, include_str!("steps/link.sh")),
        (Self::Transfer, include_str!("steps/transfer.sh")),
        (Self::Show, include_str!("steps/show.sh")),
        (Self::Unload, include_str!("steps/unload.sh")),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Token => "token",
            Self::Disk => "disk",
            Self::Write => "write",
            Self::Link => "link",
            Self::Transfer => "transfer",
            Self::Show => "show",
            Self::Unload => "unload",
        }
    }
}

/// How the guest ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// PSCI `SYSTEM_OFF`.
    PowerOff,
    /// PSCI `SYSTEM_RESET`.
    Reboot,
    /// A kernel panic, told to reboot.
    Crash,
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Crash => "crash",
        }
    }
}

/// What a guest boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The distribution's kernel, and an initrd that runs steps.
    Debian {
        /// The kernel's file name: `Image`, or `Image.gz` for the compressed one.
        kernel: &'static str,
        /// What it does.
        steps: Vec<Step>,
        /// How it ends.
        end: End,
    },
    /// The bare-metal guest, with the name of one of its tests.
    Payload(&'static str),
}

impl Program {
    /// Debian, doing some steps and then powering off.
    #[must_use]
    pub fn debian(steps: &[Step]) -> Self {
        Self::Debian {
            kernel: "Image",
            steps: steps.to_vec(),
            end: End::PowerOff,
        }
    }

    /// The `[boot]` section of a config, for files in a folder of the host.
    #[must_use]
    pub fn boot_section(&self, files: &str) -> String {
        match self {
            Self::Debian { kernel, steps, end } => format!(
                "[boot]\nkernel = \"{files}/{kernel}\"\ninitrd = \"{files}/guest.cpio\"\n\
                 cmdline = \"{}\"\n",
                cmdline(steps, *end)
            ),
            Self::Payload(test) => {
                format!("[boot]\nkernel = \"{files}/payload\"\ncmdline = \"test={test}\"\n")
            }
        }
    }

    /// The `key=value` facts on the guest's console.
    #[must_use]
    pub fn facts(&self, console: &str) -> BTreeMap<String, String> {
        let own_words = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let lines = console.lines().map(str::trim);
        match self {
            // Among the kernel's messages.
            Self::Debian { .. } => lines
                .filter_map(|line| line.strip_prefix("@@ "))
                .flat_map(str::split_whitespace)
                .filter_map(|word| word.split_once('='))
                .map(own_words)
                .collect(),
            Self::Payload(_) => lines
                .filter_map(|line| line.split_once('='))
                .map(own_words)
                .collect(),
        }
    }
}

fn cmdline(steps: &[Step], end: End) -> String {
    let steps: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    format!(
        "console=ttyS0 quiet panic=-1 ccvm.steps={} ccvm.end={}",
        steps.join(","),
        end.name()
    )
}

/// The drivers that a step loads, by the name that its script uses.
const DRIVERS: [(&str, &[&str]); 3] = [
    ("token", &["arm-cca-guest"]),
    ("disk", &["ahci", "sd_mod", "nvme"]),
    ("net", &["e1000", "e1000e", "igb"]),
];

/// The guest's initrd.
///
/// # Errors
/// When the kernel's modules cannot be read.
pub fn initrd(files: &GuestFiles) -> anyhow::Result<Vec<u8>> {
    let busybox = fs::read(&files.busybox).context("cannot read busybox")?;
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "modules", "steps"] {
        archive = archive.folder(folder);
    }
    archive = archive
        .character_device("dev/console", 5, 1)
        .program("bin/busybox", &busybox)
        .program("init", INIT.as_bytes());
    for (step, script) in Step::ALL {
        archive = archive.file(&format!("steps/{}", step.name()), script.as_bytes());
    }
    let mut packed = Vec::new();
    for (set, drivers) in DRIVERS {
        let mut order = String::new();
        for module in load_order(&files.modules, drivers)? {
            let file = format!("{}.ko", module.name);
            order = order + &file + "\n";
            if !packed.contains(&file) {
                archive = archive.file(&format!("modules/{file}"), &module.content);
                packed.push(file);
            }
        }
        archive = archive.file(&format!("modules/{set}.order"), order.as_bytes());
    }
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_a_console_with_noise() {
        let console =
            "[    0.0] Linux\r\n@@ init=1 uptime=3.20\r\n[  1.0] e1000: x=1\r\n@@ rsi=\r\n";
        let facts = Program::debian(&[]).facts(console);
        assert_eq!(facts["uptime"], "3.20");
        assert_eq!(facts["rsi"], "");
        assert!(!facts.contains_key("x"));
        let facts = Program::Payload("facts").facts("realm=yes\r\nreason=a b = c\r\n");
        assert_eq!(facts["realm"], "yes");
        assert_eq!(facts["reason"], "a b = c");
    }

    #[test]
    fn the_command_line_names_the_steps_and_the_end() {
        let text = cmdline(&[Step::Facts, Step::Disk], End::Reboot);
        assert!(
            text.ends_with("ccvm.steps=facts,disk ccvm.end=reboot"),
            "{text}"
        );
    }
}
