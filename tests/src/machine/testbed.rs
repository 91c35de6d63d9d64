//! The testbed: an emulated host with KVM, an IOMMU and PCI devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::agent::{self, Agent, last_lines};
use super::qemu::{Qemu, Running};
use super::{Output, Script};
use crate::arch::Arch;
use crate::image::{Archive, load_order};
use crate::prepare::Prepared;

/// What the host's kernel needs as modules, where they are not built in: the agent's port, KVM,
/// VFIO, drivers that hold a device before VFIO does, and what is behind emulated devices.
const fn host_modules(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Arm64 => &[
            "vfio-pci",
            "vfio_iommu_type1",
            "e1000",
            "e1000e",
            "ahci",
            "sd_mod",
            "nvme",
            "tun",
            "vhost_vsock",
            "dm-mod",
            "loop",
        ],
        Arch::X86_64 => &[
            "virtio_pci",
            "virtio_console",
            "kvm-amd",
            "vfio-pci",
            "vfio_iommu_type1",
            "e1000",
            "e1000e",
            "ahci",
            "sd_mod",
            "nvme",
            "tun",
            "vhost_vsock",
            "dm-mod",
            "loop",
        ],
    }
}

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /run
mount -t debugfs none /sys/kernel/debug
for module in $(cat /modules/order); do insmod "/modules/$module"; done
# The boot is quiet because the console is slow; what comes later may be wanted.
dmesg -n 7
"#;

/// Which kernel the emulated host runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKernel {
    /// The distribution's, with its modules: VFIO has type1 only.
    Distribution,
    /// The same, as pKVM: it makes protected VMs.
    Protected,
    /// This one of our own, with IOMMUFD and all drivers built in.
    Own(PathBuf),
}

impl HostKernel {
    /// Words for its command line.
    const fn words(&self) -> &'static str {
        match self {
            Self::Distribution | Self::Own(_) => "",
            Self::Protected => " kvm-arm.mode=protected",
        }
    }
}

/// What a testbed holds besides the basics.
#[derive(Debug)]
pub struct Setup {
    /// What the host boots.
    pub kernel: HostKernel,
    /// Arguments for the emulator that add devices.
    pub devices: Vec<String>,
    /// Files for the host, by absolute path.
    pub files: Vec<(String, Vec<u8>)>,
}

/// An emulated host, up and running; dropping it ends it.
#[derive(Debug)]
pub struct Testbed {
    agent: Agent,
    // After the agent: the port closes first.
    qemu: Running,
    folder: PathBuf,
}

impl Testbed {
    /// Boots the emulated host. Its logs and images go to `folder`, which must exist.
    ///
    /// # Errors
    /// When it does not come up; the folder then holds its console.
    pub fn boot(prepared: &Prepared, setup: &Setup, folder: &Path) -> anyhow::Result<Self> {
        let initrd = folder.join("host.cpio");
        fs::write(&initrd, host_image(prepared, setup)?)
            .with_context(|| format!("cannot write {}", initrd.display()))?;
        let emulator = prepared.emulator.as_ref();
        let qemu = Qemu {
            emulator: emulator.context("this machine was to play the host itself")?,
            arch: prepared.arch,
            kernel: match &setup.kernel {
                HostKernel::Distribution | HostKernel::Protected => &prepared.guest.kernel,
                HostKernel::Own(kernel) => kernel,
            },
            words: setup.kernel.words(),
            initrd: &initrd,
            devices: &setup.devices,
            folder,
        };
        let (qemu, port) = qemu.start()?;
        let agent = Agent::greet(port, Duration::from_secs(180))
            .with_context(|| format!("see the console in {}", folder.display()))?;
        Ok(Self {
            agent,
            qemu,
            folder: folder.to_owned(),
        })
    }

    /// Runs a script on the host, handing over each line as it is printed.
    ///
    /// # Errors
    /// When the host dies or the script takes too long.
    pub fn run(&mut self, script: &Script, on_line: impl FnMut(&str)) -> anyhow::Result<Output> {
        self.agent
            .run(script, on_line)
            .with_context(|| format!("see the console in {}", self.folder.display()))
    }

    /// How the emulated host came to its end, if it has: the emulator's words and the console's last.
    pub fn death(&mut self) -> Option<String> {
        let ended = self.qemu.ended()?;
        let console = fs::read(self.folder.join("console.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        Some(format!("{ended}\n{}", last_lines(&console)))
    }
}

fn host_image(prepared: &Prepared, setup: &Setup) -> anyhow::Result<Vec<u8>> {
    let busybox = read(&prepared.guest.busybox)?;
    let mut archive = Archive::new();
    for folder in [
        "bin", "lib", "lib64", "dev", "proc", "sys", "run", "tmp", "etc", "modules", "ccvm",
    ] {
        archive = archive.folder(folder);
    }
    for (path, content) in prepared.programs.files() {
        archive = archive.program(path.trim_start_matches('/'), &read(content)?);
    }
    archive = archive
        .character_device("dev/console", 5, 1)
        .file(
            "etc/passwd",
            b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        )
        .program("bin/busybox", &busybox)
        .program("bin/ccvm", &read(&prepared.binaries.ccvm)?)
        .program("bin/nested", &read(&prepared.binaries.nested)?)
        .program("init", format!("{INIT}{}", agent::LOOP).as_bytes());
    let mut order = String::new();
    let modules = match &setup.kernel {
        HostKernel::Distribution | HostKernel::Protected => {
            load_order(&prepared.guest.modules, host_modules(prepared.arch))?
        }
        HostKernel::Own(_) => Vec::new(),
    };
    for module in modules {
        let file = format!("{}.ko", module.name);
        archive = archive.file(&format!("modules/{file}"), &module.content);
        order.push_str(&file);
        order.push('\n');
    }
    archive = archive.file("modules/order", order.as_bytes());
    for (path, content) in &setup.files {
        let relative = path.trim_start_matches('/');
        ensure!(!relative.is_empty(), "a file for the host needs a name");
        archive = archive.program(relative, content);
    }
    Ok(archive.finish())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
