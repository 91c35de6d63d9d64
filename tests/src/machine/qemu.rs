//! The emulator process that plays the host.

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::arch::Arch;
use crate::prepare::Emulator;

/// What to boot and with which devices.
#[derive(Debug)]
pub(super) struct Qemu<'a> {
    /// The emulator.
    pub(super) emulator: &'a Emulator,
    /// What is emulated.
    pub(super) arch: Arch,
    /// The host's kernel.
    pub(super) kernel: &'a Path,
    /// What its command line has at its end.
    pub(super) words: &'static str,
    /// The host's first file system.
    pub(super) initrd: &'a Path,
    /// Arguments that add devices.
    pub(super) devices: &'a [String],
    /// A folder for the socket and the logs.
    pub(super) folder: &'a Path,
}

impl Qemu<'_> {
    /// Starts the emulator and waits for it to open the agent's port.
    pub(super) fn start(&self) -> anyhow::Result<(Running, UnixStream)> {
        let socket = self.folder.join("agent");
        // It may be there from an attempt that failed.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen on {}", socket.display()))?;
        listener
            .set_nonblocking(true)
            .context("cannot set up the agent's socket")?;
        let log = self.folder.join("qemu.log");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output
            .try_clone()
            .context("cannot share the emulator's log")?;
        let child = self
            .emulator
            .command()
            .args(self.arguments(&socket))
            .args(self.devices)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", self.arch.emulator()))?;
        let mut running = Running { child, log };
        let port = running.accept(&listener)?;
        Ok((running, port))
    }

    fn arguments(&self, socket: &Path) -> Vec<String> {
        let console = self.folder.join("console.log");
        let board = board(self.arch).iter();
        board
            .map(|(option, value)| (*option, (*value).to_owned()))
            .chain([
                ("-accel", "tcg,thread=multi".to_owned()),
                ("-smp", "2".to_owned()),
                ("-m", "4G".to_owned()),
                ("-display", "none".to_owned()),
                ("-serial", format!("file:{}", console.display())),
                ("-kernel", self.kernel.display().to_string()),
                ("-initrd", self.initrd.display().to_string()),
                (
                    "-append",
                    format!("{}{}", command_line(self.arch), self.words),
                ),
                (
                    "-chardev",
                    format!("socket,id=agent,path={}", socket.display()),
                ),
                ("-device", "virtio-serial-pci,addr=0x1".to_owned()),
                (
                    "-device",
                    "virtserialport,chardev=agent,name=agent".to_owned(),
                ),
            ])
            .flat_map(|(option, value)| [option.to_owned(), value])
            .chain(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned))
            .collect()
    }
}

/// A machine that has KVM and an IOMMU when emulated.
const fn board(arch: Arch) -> &'static [(&'static str, &'static str)] {
    match arch {
        Arch::Arm64 => &[
            (
                "-machine",
                "virt,virtualization=on,gic-version=3,iommu=smmuv3",
            ),
            // With SVE, code that ccvm loads into a running guest's memory was seen stale.
            ("-cpu", "max,sve=off,sme=off,pauth=off"),
        ],
        Arch::X86_64 => &[
            ("-machine", "q35"),
            // Guests nest by SVM. The fifth level of the page tables costs time and gives nothing.
            // Emulation up to QEMU 7.2 lets a nested guest set XCR0 behind its host's back: without
            // XSAVE there is none. A family in which the kernel looks for no AGP bridge saves a second.
            ("-cpu", "max,la57=off,xsave=off,avx=off,avx2=off,family=25"),
            // Before the devices: it is there from their beginning.
            (
                "-device",
                "intel-iommu,intremap=on,caching-mode=on,aw-bits=48",
            ),
        ],
    }
}

/// What every kernel of a host is told.
const fn command_line(arch: Arch) -> &'static str {
    match arch {
        Arch::Arm64 => "console=ttyAMA0 panic=-1 quiet",
        // A starved emulator is late with interrupts, which the kernel takes for broken wiring.
        Arch::X86_64 => {
            "console=ttyS0 panic=-1 quiet intel_iommu=on mitigations=off no_timer_check"
        }
    }
}

/// A running emulator; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// How the emulator ended and what it said, once it has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        // Its port closes a moment before it is gone.
        let deadline = Instant::now() + Duration::from_secs(1);
        let status = loop {
            match self.child.try_wait().ok()? {
                Some(status) => break status,
                None if Instant::now() > deadline => return None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let words = fs::read_to_string(&self.log).unwrap_or_default();
        Some(format!("{status}\n{}", words.trim_end()))
    }

    fn accept(&mut self, listener: &UnixListener) -> anyhow::Result<UnixStream> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok((port, _)) = listener.accept() {
                port.set_nonblocking(false)
                    .context("cannot set up the agent's port")?;
                return Ok(port);
            }
            let ended = self
                .child
                .try_wait()
                .context("cannot ask for the emulator's state")?;
            if ended.is_some() || Instant::now() > deadline {
                let words = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the emulator did not start: {}", words.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
