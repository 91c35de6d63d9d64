//! The testbed: an emulated arm64 host with KVM, an SMMUv3 and PCI devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::agent::{self, Agent};
use super::qemu::{Qemu, Running};
use super::{Output, Script};
use crate::image::{Archive, load_order};
use crate::prepare::Prepared;

/// What the host's kernel needs as modules: VFIO, and drivers that hold a device before VFIO does.
const HOST_MODULES: &[&str] = &[
    "vfio-pci",
    "vfio_iommu_type1",
    "e1000",
    "ahci",
    "sd_mod",
    "nvme",
];

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

/// What a testbed holds besides the basics.
#[derive(Debug, Default)]
pub struct Setup {
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
    _qemu: Running,
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
        let qemu = Qemu {
            kernel: &prepared.guest.kernel,
            initrd: &initrd,
            devices: &setup.devices,
            folder,
        };
        let (qemu, port) = qemu.start()?;
        let agent = Agent::greet(port, Duration::from_secs(180))
            .with_context(|| format!("see the console in {}", folder.display()))?;
        Ok(Self {
            agent,
            _qemu: qemu,
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
}

fn host_image(prepared: &Prepared, setup: &Setup) -> anyhow::Result<Vec<u8>> {
    let busybox = read(&prepared.guest.busybox)?;
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "proc", "sys", "run", "etc", "modules", "ccvm"] {
        archive = archive.folder(folder);
    }
    archive = archive
        .character_device("dev/console", 5, 1)
        .file(
            "etc/passwd",
            b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        )
        .program("bin/busybox", &busybox)
        .program("bin/ccvm", &read(&prepared.binaries.ccvm)?)
        .program("init", format!("{INIT}{}", agent::LOOP).as_bytes());
    let mut order = String::new();
    for module in load_order(&prepared.guest.modules, HOST_MODULES)? {
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
