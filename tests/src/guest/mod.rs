//! The guest (L2): an unmodified Debian kernel and an initrd that runs steps and reports.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;

use crate::arch::Arch;
use crate::image::{Archive, load_order};
use crate::prepare::Prepared;

const INIT: &str = include_str!("init.sh");

/// What the guest can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Report the kernel, processors, RSI and swiotlb.
    Facts,
    /// Fetch an attestation token.
    Token,
    /// Load the driver of the guest's IOMMU; report what it does.
    Iommu,
    /// Read the disk.
    Disk,
    /// After [`Self::Disk`]: write it.
    Write,
    /// After [`Self::Disk`]: write and check it until a line comes in on the console.
    Churn,
    /// After [`Self::Disk`], [`Self::Find`] or [`Self::Mount`]: measure how fast that is read and written.
    Rate,
    /// Find an emulated disk.
    Find,
    /// Find the emulated disks and read them.
    Block,
    /// After [`Self::Block`]: write the first from every processor, discard a part of it, and try to write
    /// the second.
    BlockWrite,
    /// After [`Self::Block`]: write more than the host has room for.
    BlockFill,
    /// After [`Self::Block`]: use a part of the first in the middle of which the host's storage fails.
    BlockError,
    /// After [`Self::Block`]: use the first before, while and after the host's storage fails; a line comes in
    /// on the console when it does, and when it does no more.
    BlockOutage,
    /// After [`Self::Block`]: read the first a thousand times.
    BlockMany,
    /// After [`Self::Block`]: use the first after the daemon that served it is gone.
    Abandoned,
    /// Bring an emulated network card up, and transfer 1 MiB each way.
    VirtioNet,
    /// After [`Self::VirtioNet`]: take its driver away and bring it back.
    VirtioReload,
    /// After [`Self::UserNet`]: measure how fast it is.
    VirtioRate,
    /// Bring up a network card that a daemon serves; [`Self::Transfer`] can come next.
    UserNet,
    /// Mount, read and write a file system that a daemon serves.
    Fs,
    /// Mount a file system that a daemon serves.
    Mount,
    /// Read random numbers of the host.
    Rng,
    /// Measure how fast they come.
    RngRate,
    /// Speak and listen by the virtio console.
    Hvc,
    /// Measure how fast it speaks and listens.
    HvcRate,
    /// Send to the host by a socket, and receive.
    Vsock,
    /// Measure how fast such a socket is.
    VsockRate,
    /// Wait for the power button to be pressed.
    Button,
    /// Have panics told to the host.
    PanicNotifier,
    /// Wait for a line on the console.
    Hold,
    /// Bring the network card up.
    Link,
    /// After [`Self::Link`] or [`Self::UserNet`]: transfer 1 MiB each way.
    Transfer,
    /// Print the kernel's own lines on Realm, swiotlb and link.
    Show,
    /// After [`Self::Iommu`]: drive edu by VFIO and measure mapping.
    Nested,
    /// Remove the device drivers.
    Unload,
    /// Read each disk that comes, until somebody ends the VM.
    Slots,
    /// Count seconds until somebody ends the VM.
    Tick,
}

impl Step {
    const ALL: [(Self, &'static str); 37] = [
        (Self::Facts, include_str!("steps/facts.sh")),
        (Self::Token, include_str!("steps/token.sh")),
        (Self::Iommu, include_str!("steps/iommu.sh")),
        (Self::Disk, include_str!("steps/disk.sh")),
        (Self::Write, include_str!("steps/write.sh")),
        (Self::Churn, include_str!("steps/churn.sh")),
        (Self::Rate, include_str!("steps/rate.sh")),
        (Self::Find, include_str!("steps/find.sh")),
        (Self::Block, include_str!("steps/block.sh")),
        (Self::BlockWrite, include_str!("steps/block-write.sh")),
        (Self::BlockFill, include_str!("steps/block-fill.sh")),
        (Self::BlockError, include_str!("steps/block-error.sh")),
        (Self::BlockOutage, include_str!("steps/block-outage.sh")),
        (Self::BlockMany, include_str!("steps/block-many.sh")),
        (Self::Abandoned, include_str!("steps/abandoned.sh")),
        (Self::VirtioNet, include_str!("steps/virtio-net.sh")),
        (Self::VirtioReload, include_str!("steps/virtio-reload.sh")),
        (Self::VirtioRate, include_str!("steps/virtio-rate.sh")),
        (Self::UserNet, include_str!("steps/user-net.sh")),
        (Self::Fs, include_str!("steps/fs.sh")),
        (Self::Mount, include_str!("steps/mount.sh")),
        (Self::Rng, include_str!("steps/rng.sh")),
        (Self::RngRate, include_str!("steps/rng-rate.sh")),
        (Self::Hvc, include_str!("steps/hvc.sh")),
        (Self::HvcRate, include_str!("steps/hvc-rate.sh")),
        (Self::Vsock, include_str!("steps/vsock.sh")),
        (Self::VsockRate, include_str!("steps/vsock-rate.sh")),
        (Self::Button, include_str!("steps/button.sh")),
        (Self::PanicNotifier, include_str!("steps/panic-notifier.sh")),
        (Self::Hold, include_str!("steps/hold.sh")),
        (Self::Link, include_str!("steps/link.sh")),
        (Self::Transfer, include_str!("steps/transfer.sh")),
        (Self::Show, include_str!("steps/show.sh")),
        (Self::Nested, include_str!("steps/nested.sh")),
        (Self::Unload, include_str!("steps/unload.sh")),
        (Self::Slots, include_str!("steps/slots.sh")),
        (Self::Tick, include_str!("steps/tick.sh")),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Token => "token",
            Self::Iommu => "iommu",
            Self::Disk => "disk",
            Self::Write => "write",
            Self::Churn => "churn",
            Self::Rate => "rate",
            Self::Find => "find",
            Self::Block => "block",
            Self::BlockWrite => "block-write",
            Self::BlockFill => "block-fill",
            Self::BlockError => "block-error",
            Self::BlockOutage => "block-outage",
            Self::BlockMany => "block-many",
            Self::Abandoned => "abandoned",
            Self::VirtioNet => "virtio-net",
            Self::VirtioReload => "virtio-reload",
            Self::VirtioRate => "virtio-rate",
            Self::UserNet => "user-net",
            Self::Fs => "fs",
            Self::Mount => "mount",
            Self::Rng => "rng",
            Self::RngRate => "rng-rate",
            Self::Hvc => "hvc",
            Self::HvcRate => "hvc-rate",
            Self::Vsock => "vsock",
            Self::VsockRate => "vsock-rate",
            Self::Button => "button",
            Self::PanicNotifier => "panic-notifier",
            Self::Hold => "hold",
            Self::Link => "link",
            Self::Transfer => "transfer",
            Self::Show => "show",
            Self::Nested => "nested",
            Self::Unload => "unload",
            Self::Slots => "slots",
            Self::Tick => "tick",
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

/// In which form a guest gets the distribution's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// As its package has it.
    Packaged,
    /// Compressed by gzip on arm64; on x86_64 unpacked, an ELF file with a PVH note.
    Converted,
}

impl Kernel {
    /// The file's name on the host.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Packaged => "kernel",
            Self::Converted => "kernel.converted",
        }
    }
}

/// What a guest boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The distribution's kernel, and an initrd that runs steps.
    Debian {
        /// The kernel's form.
        kernel: Kernel,
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
            kernel: Kernel::Packaged,
            steps: steps.to_vec(),
            end: End::PowerOff,
        }
    }

    /// The `[boot]` section of a config, for files in a folder of the host.
    #[must_use]
    pub fn boot_section(&self, files: &str) -> String {
        match self {
            Self::Debian { kernel, steps, end } => format!(
                "[boot]\nkernel = \"{files}/{}\"\ninitrd = \"{files}/guest.cpio\"\n\
                 cmdline = \"{}\"\n",
                kernel.file(),
                cmdline("ttyS0", steps, *end)
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
            // Messages of the kernel, behind their time; an operator's have none.
            Self::Debian { .. } => lines
                .filter_map(|line| line.split_once("@@ "))
                .flat_map(|(_, words)| words.split_whitespace())
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

/// The kernel's command line for `steps`, with the guest's console at `console`.
#[must_use]
pub fn cmdline(console: &str, steps: &[Step], end: End) -> String {
    // The yardstick of the figures is an access to the registers of a device that has a driver.
    let relaxed = match steps.contains(&Step::Nested) {
        true => " iomem=relaxed",
        false => "",
    };
    let steps: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    format!(
        "console={console} quiet panic=-1{relaxed} ccvm.steps={} ccvm.end={}",
        steps.join(","),
        end.name()
    )
}

/// The drivers that a step loads, by the name that its script uses.
const DRIVERS: [(&str, &[&str]); 10] = [
    ("iommu", &["virtio_pci", "virtio-iommu"]),
    ("disk", &["ahci", "sd_mod", "nvme"]),
    ("block", &["virtio_pci", "virtio_blk"]),
    ("virtio-net", &["virtio_pci", "virtio_net"]),
    ("fs", &["virtio_pci", "virtiofs"]),
    ("rng", &["virtio_pci", "virtio-rng"]),
    ("console", &["virtio_pci", "virtio_console"]),
    ("vsock", &["virtio_pci", "vmw_vsock_virtio_transport"]),
    ("net", &["e1000", "e1000e", "igb"]),
    ("vfio", &["vfio-pci", "vfio_iommu_type1"]),
];

/// Those of one architecture.
const fn own_drivers(arch: Arch) -> &'static [(&'static str, &'static [&'static str])] {
    match arch {
        Arch::Arm64 => &[
            ("token", &["arm-cca-guest"]),
            ("button", &["gpio_keys", "evdev"]),
        ],
        Arch::X86_64 => &[
            ("button", &["button", "evdev"]),
            ("panic-notifier", &["pvpanic-mmio"]),
        ],
    }
}

/// The guest's initrd.
///
/// # Errors
/// When the kernel's modules cannot be read.
pub fn initrd(prepared: &Prepared) -> anyhow::Result<Vec<u8>> {
    let files = &prepared.guest;
    let nested = fs::read(&prepared.binaries.nested).context("cannot read nested")?;
    let busybox = fs::read(&files.busybox).context("cannot read busybox")?;
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "modules", "steps"] {
        archive = archive.folder(folder);
    }
    archive = archive
        .character_device("dev/console", 5, 1)
        .program("bin/busybox", &busybox)
        .program("bin/nested", &nested)
        .program("init", INIT.as_bytes());
    for (step, script) in Step::ALL {
        archive = archive.file(&format!("steps/{}", step.name()), script.as_bytes());
    }
    let mut packed = Vec::new();
    for (set, drivers) in own_drivers(prepared.arch).iter().chain(&DRIVERS) {
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
            "[    0.0] Linux\r\n[ 0.1] @@ init=1 uptime=3.20\r\n[  1.0] e1000: x=1\r\n@@ rsi=\r\n";
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
        let text = cmdline("ttyS0", &[Step::Facts, Step::Disk], End::Reboot);
        assert!(
            text.ends_with("ccvm.steps=facts,disk ccvm.end=reboot"),
            "{text}"
        );
    }
}
